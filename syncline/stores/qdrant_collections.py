"""Settings of collections as a Qdrant server takes them: for a new one, and for one that is there."""

from dataclasses import dataclass, field
from typing import TypedDict

from qdrant_client import models

from syncline.stores.collection_options import CollectionOptions

__all__ = ["Creation", "Difference", "creation", "difference"]

_Quantization = models.ScalarQuantization | models.BinaryQuantization


class Creation(TypedDict):
    """Arguments of `create_collection`."""

    vectors_config: models.VectorParams
    shard_number: int | None
    replication_factor: int | None
    write_consistency_factor: int | None
    on_disk_payload: bool | None
    hnsw_config: models.HnswConfigDiff | None
    quantization_config: _Quantization | None


@dataclass(slots=True)
class Difference:
    """How a collection differs from its graph's record."""

    vectors: models.VectorParamsDiff | None = None
    params: models.CollectionParamsDiff | None = None
    hnsw: models.HnswConfigDiff | None = None
    quantization: _Quantization | models.Disabled | None = None
    changed: list[str] = field(default_factory=list)
    """Names of the settings that an update changes."""
    fixed: list[str] = field(default_factory=list)
    """Those that only a new collection gets."""


def creation(options: CollectionOptions, *, dimensions: int) -> Creation:
    """Return what a new collection is made with."""
    quantization = _quantized(options)
    return Creation(
        vectors_config=models.VectorParams(
            size=dimensions, distance=models.Distance.COSINE, on_disk=options.vectors_on_disk
        ),
        shard_number=options.shards,
        replication_factor=options.replication_factor,
        write_consistency_factor=options.write_consistency_factor,
        on_disk_payload=options.payload_on_disk,
        hnsw_config=_hnsw(options),
        quantization_config=None if isinstance(quantization, models.Disabled) else quantization,
    )


def difference(options: CollectionOptions, info: models.CollectionInfo) -> Difference:
    """Return what has to change in a collection; what the record leaves to the store never differs."""
    found = Difference()
    params, hnsw = info.config.params, info.config.hnsw_config
    vectors = params.vectors if isinstance(params.vectors, models.VectorParams) else None
    of_vectors = vectors is not None and _differs(options.vectors_on_disk, vectors.on_disk or False)
    if of_vectors:
        found.vectors = models.VectorParamsDiff(on_disk=options.vectors_on_disk)
        found.changed.append("vectors_on_disk")
    of_params = {
        "payload_on_disk": _differs(options.payload_on_disk, params.on_disk_payload),
        "replication_factor": _differs(options.replication_factor, params.replication_factor),
        "write_consistency_factor": _differs(
            options.write_consistency_factor, params.write_consistency_factor
        ),
    }
    if any(of_params.values()):
        found.params = models.CollectionParamsDiff(
            on_disk_payload=options.payload_on_disk,
            replication_factor=options.replication_factor,
            write_consistency_factor=options.write_consistency_factor,
        )
    of_hnsw = {
        "hnsw_m": _differs(options.hnsw_m, hnsw.m),
        "hnsw_ef_construct": _differs(options.hnsw_ef_construct, hnsw.ef_construct),
        "hnsw_on_disk": _differs(options.hnsw_on_disk, hnsw.on_disk or False),
    }
    if any(of_hnsw.values()):
        found.hnsw = _hnsw(options)
    found.changed += [name for name, differs in {**of_params, **of_hnsw}.items() if differs]
    if options.quantization is not None and _kind(info.config.quantization_config) != options.quantization:
        found.quantization = _quantized(options)
        found.changed.append("quantization")
    if _differs(options.shards, params.shard_number):
        found.fixed.append("shards")
    return found


def _differs(wanted: int | None, found: int | None) -> bool:
    return wanted is not None and wanted != found


def _hnsw(options: CollectionOptions) -> models.HnswConfigDiff | None:
    wanted = (options.hnsw_m, options.hnsw_ef_construct, options.hnsw_on_disk)
    if all(value is None for value in wanted):
        return None
    m, ef_construct, on_disk = wanted
    return models.HnswConfigDiff(m=m, ef_construct=ef_construct, on_disk=on_disk)


def _quantized(options: CollectionOptions) -> _Quantization | models.Disabled | None:
    match options.quantization:
        case None:
            return None
        case "none":
            return models.Disabled.DISABLED
        case "scalar":
            return models.ScalarQuantization(
                scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8)
            )
        case "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig())


def _kind(found: object) -> str:
    if found is None:
        return "none"
    if isinstance(found, models.ScalarQuantization):
        return "scalar"
    return "binary" if isinstance(found, models.BinaryQuantization) else "another"
