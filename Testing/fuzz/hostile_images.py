"""NIfTI, NRRD and MetaImage files whose headers lie and whose voxels are missing."""

import functools
import gzip
import struct
import tempfile
import zlib
from pathlib import Path

import numpy as np
import SimpleITK
from hostile_bytes import damaged_bytes
from hostile_guard import Format
from hypothesis import strategies as st

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.headers import read_header
from SSLSegLib.cases.nifti import count_not_finite, is_nifti
from SSLSegLib.cases.reading import read_image, read_label_file
from SSLSegLib.cases.segments import segment_fields
from SSLSegLib.errors import SSLSegError

__all__ = ["FORMATS"]

CLASSES = [SegmentClass(value=1, name="liver", color=(1, 2, 3)), SegmentClass(value=2, name="spleen", color=(3, 2, 1))]

# NIfTI-1: offset and format of every field that says something about the grid or the voxels.
NIFTI_FIELDS = {
    **{f"dim[{index}]": (40 + 2 * index, "h") for index in range(8)},
    "datatype": (70, "h"),
    "bitpix": (72, "h"),
    **{f"pixdim[{index}]": (76 + 4 * index, "f") for index in range(8)},
    "vox_offset": (108, "f"),
    "scl_slope": (112, "f"),
    "scl_inter": (116, "f"),
    "xyzt_units": (123, "b"),
    "descrip": (148, "80s"),
    "qform_code": (252, "h"),
    "sform_code": (254, "h"),
    **{f"quatern[{index}]": (256 + 4 * index, "f") for index in range(6)},
    **{f"srow[{index}]": (280 + 4 * index, "f") for index in range(12)},
    "magic": (344, "4s"),
    "extension": (348, "4s"),
    "sizeof_hdr": (0, "i"),
}
NUMBERS = {
    "h": [0, 1, 2, 3, 4, 5, 7, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 2304, 32767, -1, -32768],
    "b": [0, 1, 2, 8, 127, -1],
    "i": [348, 540, 0, -1, 2**31 - 1],
    "f": [0.0, -0.0, 1.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), float("-inf"), 352.0, 1e9],
}


@functools.cache
def _valid(name: str) -> bytes:
    """A small valid file of this name's kind."""
    with tempfile.TemporaryDirectory() as folder:
        array = np.zeros((3, 4, 5), np.uint8 if "label" in name or "seg" in name else np.float32)
        array[1, 1:3, 1:3] = 1
        image = SimpleITK.GetImageFromArray(array)
        image.SetSpacing((0.7, 0.8, 3.0))
        if name.endswith(".seg.nrrd"):
            for key, text in segment_fields(array, CLASSES).items():
                image.SetMetaData(key, text)
        path = Path(folder) / name
        SimpleITK.WriteImage(image, str(path), useCompression=False)
        return path.read_bytes()


@st.composite
def nifti(draw: st.DrawFn, name: str) -> bytes:
    content = bytearray(_valid(name))
    for _ in range(draw(st.integers(1, 4))):
        field = draw(st.sampled_from(sorted(NIFTI_FIELDS)))
        offset, kind = NIFTI_FIELDS[field]
        if kind.endswith("s"):
            packed = draw(st.binary(min_size=int(kind[:-1]), max_size=int(kind[:-1])))
        else:
            packed = struct.pack("<" + kind, draw(st.sampled_from(NUMBERS[kind])))
        content[offset : offset + len(packed)] = packed
    return draw(st.one_of(*[st.just(bytes(content))] * 4, damaged_bytes(bytes(content))))


NIFTI2_HEAD = struct.pack("<i8s2h8q3d8d", 540, b"n+2\0\r\n\x1a\n", 16, 32, 3, 5, 4, 3, 1, 1, 1, 1, 0, 0, 0, *[1.0] * 8)


@st.composite
def nifti2(draw: st.DrawFn) -> bytes:
    sizes = [draw(st.sampled_from([3, 4, 5, 0, -1, 1, 2**31, 2**40, 2**62, -(2**63)])) for _ in range(8)]
    sizes[0] = draw(st.sampled_from([3, 3, 3, 4, 7, 8, 0, -1, 2**62]))
    head = bytearray(NIFTI2_HEAD.ljust(544, b"\0"))
    struct.pack_into("<8q", head, 16, *sizes)
    struct.pack_into("<q", head, 168, draw(st.sampled_from([544, 0, -1, 2**62, 2**30])))
    return bytes(head) + bytes(draw(st.integers(0, 400)))


LINES = {
    "nrrd": [
        "sizes: 5 4 3",
        "sizes: -5 4 3",
        "sizes: 0 4 3",
        "sizes: 100000 100000 100000",
        "sizes: 4611686018427387904 4 4",
        "sizes: 99999999999999999999999 1 1",
        "sizes: 5 4",
        "dimension: 3",
        "dimension: 0",
        "dimension: -1",
        "dimension: 2",
        "dimension: 17",
        "dimension: 999999999",
        "type: float",
        "type: uint64",
        "type: block",
        "type: nonsense",
        "encoding: raw",
        "encoding: gzip",
        "encoding: hex",
        "encoding: ascii",
        "encoding: bzip2",
        "endian: middle",
        "space: left-posterior-superior",
        "space: scanner-xyz",
        "space directions: (0,0,0) (0,1,0) (0,0,1)",
        "space directions: (1,0,0) (1,0,0) (0,0,1)",
        "space directions: (nan,0,0) (0,1,0) (0,0,1)",
        "space directions: (inf,0,0) (0,1,0) (0,0,1)",
        "space directions: none (1,0,0) (0,1,0)",
        "space directions: (1e-300,0,0) (0,1,0) (0,0,1)",
        "space directions: (1,0.5,0) (0,1,0) (0,0,1)",
        "space origin: (nan,0,0)",
        "space origin: (1e300,0,0)",
        "space origin: (0,0)",
        "spacings: 0 0 0",
        "spacings: -1 nan 1",
        "kinds: domain domain list",
        "kinds: vector domain domain",
        "data file: /etc/passwd",
        "data file: /dev/zero",
        "data file: ../canary",
        "data file: LIST",
        "data file: x%d.raw 1 1000000 1",
        "line skip: 1000000000",
        "byte skip: -1",
        "byte skip: -9999999999",
        "byte skip: 99999999999999999999",
        "Segment0_Name:=\ud0ff",
        "Segment0_LabelValue:=99999999999999999999999",
        "Segment0_LabelValue:=x",
        "Segment0_Layer:=-1",
        "Segment0_Layer:=1e9",
        "Segment99999999999999999999_Name:=x",
        "x" * 5000,
        "",
    ],
    "mha": [
        "ObjectType = Image",
        "NDims = 3",
        "NDims = 0",
        "NDims = -1",
        "NDims = 11",
        "NDims = 999999",
        "DimSize = 5 4 3",
        "DimSize = -5 4 3",
        "DimSize = 0 0 0",
        "DimSize = 100000 100000 100000",
        "DimSize = 2147483647 2147483647 2",
        "DimSize = 5 4",
        "ElementType = MET_FLOAT",
        "ElementType = MET_DOUBLE_ARRAY",
        "ElementType = NONSENSE",
        "ElementNumberOfChannels = 0",
        "ElementNumberOfChannels = -3",
        "ElementNumberOfChannels = 2147483647",
        "ElementSpacing = 0 0 0",
        "ElementSpacing = -1 1 1",
        "ElementSpacing = nan 1 1",
        "ElementSpacing = 1e-300 1 1",
        "TransformMatrix = 0 0 0 0 0 0 0 0 0",
        "TransformMatrix = nan 0 0 0 1 0 0 0 1",
        "TransformMatrix = 1 0 0 1 0 0 0 0 1",
        "Offset = nan 0 0",
        "Offset = 1e300 0 0",
        "CompressedData = True",
        "CompressedDataSize = -1",
        "CompressedDataSize = 99999999999",
        "HeaderSize = -1",
        "HeaderSize = -2",
        "HeaderSize = 999999999",
        "ElementDataFile = LOCAL",
        "ElementDataFile = /etc/passwd",
        "ElementDataFile = /dev/zero",
        "ElementDataFile = ../canary",
        "ElementDataFile = LIST",
        "ElementDataFile = x%03d.raw 1 1000000 1",
        "BinaryData = False",
        "BinaryDataByteOrderMSB = True",
        "X" * 5000 + " = 1",
        "",
    ],
}


@st.composite
def text_header(draw: st.DrawFn, name: str, kind: str) -> bytes:
    """The header's lines replaced, doubled and mixed with hostile ones; the voxels behind them as they were."""
    valid = _valid(name)
    end = valid.index(b"\n\n") if kind == "nrrd" else valid.index(b"ElementDataFile")
    lines = valid[:end].decode("latin-1").splitlines()
    rest = valid[end:]
    for _ in range(draw(st.integers(1, 3))):
        line = draw(st.sampled_from(LINES[kind]))
        separator = ":" if kind == "nrrd" else "="
        field = line.split(separator)[0].strip()
        same = [index for index, other in enumerate(lines) if other.split(separator)[0].strip() == field]
        if kind == "mha" and field == "ElementDataFile":
            rest = line.encode() + rest[rest.index(b"\n") :]
        elif same and draw(st.integers(0, 3)):
            lines[same[0]] = line
        else:
            lines.insert(draw(st.integers(0 if draw(st.integers(0, 9)) == 0 else 1, len(lines))), line)
    joint = "\n".join(lines).encode("latin-1", "replace")
    content = joint + rest if kind == "nrrd" else joint + b"\n" + rest
    if draw(st.booleans()) and draw(st.booleans()):
        content = content[: draw(st.integers(0, len(content)))]
    return draw(st.one_of(*[st.just(content)] * 4, damaged_bytes(content)))


def _reader(name: str):
    def read(folder: Path, content: bytes) -> None:
        path = folder / name
        path.write_bytes(content)
        refused: list[SSLSegError] = []
        for attempt in (_as_image, _as_label):
            try:
                attempt(path)
            except SSLSegError as error:
                refused.append(error)
        if is_nifti(path):
            count_not_finite(path)
        if len(refused) == 2:  # neither an image nor a label
            raise refused[0]

    return read


def _as_image(path: Path) -> None:
    volume = read_image(path)
    assert volume.array.shape[1:] == volume.geometry.shape
    assert min(volume.geometry.spacing) > 0
    assert np.isfinite(volume.geometry.ijk_to_ras).all()
    header = read_header(path)
    assert header.geometry is None or header.geometry.matches(volume.geometry)


def _as_label(path: Path) -> None:
    label = read_label_file(path, CLASSES)
    assert set(np.unique(label.array)) <= {0, 1, 2}


def packed(level: int = 1):
    return lambda content: gzip.compress(content, level, mtime=0)


@st.composite
def packed_badly(draw: st.DrawFn) -> bytes:
    """A packed NIfTI whose stream is cut, doubled, followed by rubbish, or far longer than the header says."""
    inner = draw(nifti("x.nii") | st.just(_valid("x.nii")))
    stream = gzip.compress(inner, 1, mtime=0)
    longer = zlib.compressobj(1, zlib.DEFLATED, 31)
    choices = [
        st.just(stream),
        st.just(stream + stream),
        damaged_bytes(stream),
        st.just(stream[:-4] + b"\xff\xff\xff\xff"),
        st.just(longer.compress(inner) + longer.compress(bytes(2**22)) + longer.flush()),
    ]
    return draw(st.one_of(*choices))


FORMATS = [
    Format("NIfTI-1 header", nifti("x.nii"), _reader("x.nii")),
    Format("NIfTI-1 label", nifti("label.nii"), _reader("label.nii")),
    Format("NIfTI-2 header", nifti2(), _reader("x.nii")),
    Format("NIfTI packed", packed_badly(), _reader("x.nii.gz")),
    Format("NRRD header", text_header("x.nrrd", "nrrd"), _reader("x.nrrd")),
    Format("NRRD segmentation", text_header("x.seg.nrrd", "nrrd"), _reader("x.seg.nrrd")),
    Format("NRRD detached", text_header("x.nrrd", "nrrd"), _reader("x.nhdr")),
    Format("MetaImage header", text_header("x.mha", "mha"), _reader("x.mha")),
    Format("MetaImage detached", text_header("x.mha", "mha"), _reader("x.mhd")),
]
