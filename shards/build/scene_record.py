"""Makes the manifest's record of a scene from the results of its shards."""

import itertools
from collections.abc import Sequence

from shards.archive.manifest import ModalityRecord, ScalingRecord, SceneRecord
from shards.archive.zarr_scenes import SceneLayout, StoredModality
from shards.build.build_shard import ShardResult
from shards.build.statistics import BandStatistics
from shards.errors import BadInput


def scene_record(layout: SceneLayout, results: Sequence[ShardResult]) -> SceneRecord:
    """The manifest's record of a scene, from the results of its shards in their order.

    Raises:
        BadInput: a modality has no valid pixel, or a band is constant.
    """
    modalities = []
    for stored in layout.modalities:
        total = BandStatistics.empty(stored.modality.bands)
        for result in results:
            total = total.merged(result.statistics[stored.modality.name])
        modalities.append(_modality_record(layout.name, stored, total))
    classes = layout.classes
    return SceneRecord(
        name=layout.name,
        height=layout.height,
        width=layout.width,
        modalities=tuple(modalities),
        crs_wkt=layout.crs_wkt,
        transform=layout.transform,
        classes=dict(classes.names) if classes else {},
        descriptions=dict(classes.descriptions) if classes else {},
        official_split=bool(classes and classes.official_split),
        generated=layout.generated,
        tile_size=layout.settings.tile_size,
        halo=layout.settings.halo,
        samples_per_shard=layout.settings.samples_per_shard,
        kept_bits=layout.settings.kept_bits,
        tiles=tuple(itertools.chain.from_iterable(result.tiles for result in results)),
        class_id_shift=classes.id_shift if classes else 0,
    )


def _modality_record(scene: str, stored: StoredModality, total: BandStatistics) -> ModalityRecord:
    modality, std = stored.modality, total.std
    if not total.count:
        raise BadInput(
            f"{scene}: {modality.name}: no valid pixel: each is nodata, not finite or covered by no file in some band"
        )
    if not any(std):
        raise BadInput(f"{scene}: {modality.name}: every band is constant over the {total.count} valid pixels")
    return ModalityRecord(
        modality.name,
        modality.bands,
        stored.dtype,
        modality.wavelengths_nm,
        modality.fwhm_nm,
        modality.bad_bands,
        total.mean,
        tuple(deviation or 1.0 for deviation in std),
        tuple(band for band, deviation in enumerate(std, start=1) if not deviation),
        total.count,
        stored.missing_value,
        modality.band_names,
        tuple(ScalingRecord(applied.files, applied.scale, applied.offset) for applied in modality.scalings),
        modality.sensor,
        modality.surface_height,
    )
