# ruff: noqa: N802, N815, RUF012 - the names are those of Slicer and Qt
"""``SampleData`` that downloads nothing: it keeps what was registered and calls a source's own downloader."""

import sys
import types
from dataclasses import dataclass, field
from typing import Any

__all__ = ["make_sample_data_module"]


@dataclass
class SampleDataSource:
    """One entry of the Sample Data module."""

    sampleName: str
    sampleDescription: str | None = None
    uris: Any = None
    fileNames: Any = None
    nodeNames: Any = None
    checksums: Any = None
    loadFiles: Any = None
    loadFileTypes: Any = None
    customDownloader: Any = None
    thumbnailFileName: str | None = None
    loadFileProperties: dict = field(default_factory=dict)


class SampleDataLogic:
    """Sources by category, shared as in Slicer by all logics."""

    sources: dict[str, list[SampleDataSource]] = {}
    titles: dict[str, str] = {}

    @staticmethod
    def registerCustomSampleDataCategory(category: str, title: str | None = None, **options: Any) -> None:
        SampleDataLogic.titles[category] = title or category

    @staticmethod
    def registerCustomSampleDataSource(category: str = "Custom", sampleName: str | None = None, **options: Any) -> None:
        renamed = {"loadFileType": "loadFileTypes"}
        options = {renamed.get(key, key): value for key, value in options.items()}
        known = SampleDataLogic.sources.setdefault(category, [])
        known[:] = [each for each in known if each.sampleName != sampleName]
        known.append(SampleDataSource(sampleName, **options))

    def sourceForSampleName(self, name: str) -> SampleDataSource | None:
        every = [source for sources in self.sources.values() for source in sources]
        return next((source for source in every if source.sampleName == name), None)

    def downloadSample(self, name: str) -> Any:
        return self.downloadFromSource(self.sourceForSampleName(name))

    def downloadFromSource(self, source: SampleDataSource) -> Any:
        if source.customDownloader is None:
            raise RuntimeError(f"The host downloads nothing, not even {source.sampleName}")
        return source.customDownloader(source)


def make_sample_data_module() -> types.ModuleType:
    """The module, also put into ``sys.modules``."""
    module = sys.modules["SampleData"] = types.ModuleType("SampleData")
    module.SampleDataLogic, module.SampleDataSource = SampleDataLogic, SampleDataSource
    SampleDataLogic.sources = {}
    return module
