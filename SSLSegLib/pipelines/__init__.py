"""The methods from end to end. Each function reads like its algorithm in the paper; the rooms do the work."""

from SSLSegLib.pipelines.encoding import LabelledCase, encode_labelled
from SSLSegLib.pipelines.expected import advice, leave_one_out, reliability
from SSLSegLib.pipelines.self_training import Refined, ssl_medsam2
from SSLSegLib.pipelines.tffs import METHOD, ensemble, pseudo_label
from SSLSegLib.pipelines.vessa import vessa_stage_1, vessa_unimatch

__all__ = [
    "METHOD",
    "LabelledCase",
    "Refined",
    "advice",
    "encode_labelled",
    "ensemble",
    "leave_one_out",
    "pseudo_label",
    "reliability",
    "ssl_medsam2",
    "vessa_stage_1",
    "vessa_unimatch",
]
