"""Products as agencies deliver them, generated small by their specifications."""

import json
from pathlib import Path
from typing import Any

import h5netcdf
import h5py
import numpy as np
import rasterio
from rasterio.transform import from_origin
from small_scenes import pixels, write_raster

HEIGHT, WIDTH = 12, 18
LANDSAT = "LC09_L2SP_193023_20220724_20230407_02_T1"


def write_band(path: Path, values: np.ndarray, metres: int = 10, **more: Any) -> None:
    """One band (row, col) from the corner x 600000, y 5800000 of EPSG:32633."""
    more |= {"transform": from_origin(600000, 5800000, metres, metres)}
    write_raster(path, values[..., None], **more)


def write_sentinel2(folder: Path, offset: int | None, level: str = "2A", **more: Any) -> dict[str, np.ndarray]:
    """A SAFE folder of four bands, of 10, 20 and 60 m; gives the counts of each."""
    safe = folder / f"S2B_MSIL{level}_20230601T102559_N0509_R108_T33UUU_20230601T131313.SAFE"
    images = safe / "GRANULE" / f"L{level}_T33UUU_A032567_20230601T102601" / "IMG_DATA"
    rng = np.random.default_rng(0)
    counts: dict[str, np.ndarray] = {}
    for name, metres in (("B01", 60), ("B02", 10), ("B8A", 20), ("B12", 20)):
        shape = HEIGHT * 10 // metres, WIDTH * 10 // metres
        counts[name] = rng.integers(1001, 6000, shape).astype(np.uint16)
        place = (
            images / f"R{metres}m" / f"T33UUU_x_{name}_{metres}m.jp2"
            if level == "2A"
            else images / f"T33UUU_x_{name}.jp2"
        )
        write_band(place, counts[name], metres, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES")
    if level == "2A":  # products repeat finer bands at coarser resolutions
        coarse = counts["B02"][::2, ::2]
        write_band(
            images / "R20m" / "T33UUU_x_B02_20m.jp2", coarse, 20, driver="JP2OpenJPEG", QUALITY=100, REVERSIBLE="YES"
        )
    if "codes" in more:
        write_band(
            images / "R20m" / "T33UUU_x_SCL_20m.jp2",
            more["codes"],
            20,
            driver="JP2OpenJPEG",
            QUALITY=100,
            REVERSIBLE="YES",
        )
    kind, quantity = ("BOA", "BOA_QUANTIFICATION_VALUE") if level == "2A" else ("RADIO", "QUANTIFICATION_VALUE")
    added = (
        ""
        if offset is None
        else "".join(f'<{kind}_ADD_OFFSET band_id="{n}">{offset}</{kind}_ADD_OFFSET>' for n in range(13))
    )
    spectral = (
        '<Spectral_Information bandId="1" physicalBand="B2"><Wavelength><MIN unit="nm">439</MIN>'
        '<CENTRAL unit="nm">492.1</CENTRAL></Wavelength></Spectral_Information>'
    )
    (safe / f"MTD_MSIL{level}.xml").write_text(
        f'<n1:Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int"><n1:General_Info><{quantity} unit="none">10000'
        f"</{quantity}><List>{added}</List>{spectral}</n1:General_Info></n1:Product>"
    )
    return counts


def write_landsat(folder: Path, form: str, sensor: str = "OLI_TIRS", level: str = "L2SP") -> dict[int, np.ndarray]:
    """A Collection 2 folder of three bands with quality layers and its metadata in one form; gives the counts."""
    name = LANDSAT.replace("L2SP", level)
    product = folder / name
    rng = np.random.default_rng(1)
    counts = {band: rng.integers(7000, 30000, (HEIGHT, WIDTH)).astype(np.uint16) for band in (1, 4, 7)}
    counts[4][0, 0] = 0
    fill, saturation = np.full((HEIGHT, WIDTH), 21824, np.uint16), np.zeros((HEIGHT, WIDTH), np.uint16)
    fill[3, 4] = 1
    fill[5, 5] = 22280  # cloud
    saturation[6, 7], saturation[8, 8] = 1 << 3, 1 << 9  # band 4, and the thermal band 10
    kind = "SR_B" if level == "L2SP" else "B"
    for band, values in counts.items():
        write_band(product / f"{name}_{kind}{band}.TIF", values, 30, nodata=0)
    write_band(product / f"{name}_QA_PIXEL.TIF", fill, 30, nodata=1)
    write_band(product / f"{name}_QA_RADSAT.TIF", saturation, 30)
    rescaling = {f"REFLECTANCE_MULT_BAND_{band}": "2.75e-05" for band in counts}
    rescaling |= {f"REFLECTANCE_ADD_BAND_{band}": "-0.200000" for band in counts}
    top = {key: "2.0E-05" if "MULT" in key else "-0.1" for key in rescaling}
    group = "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"
    content = {
        "PRODUCT_CONTENTS": {
            "LANDSAT_PRODUCT_ID": name,
            "PROCESSING_LEVEL": level,
            "COLLECTION_NUMBER": "02",
            **{f"FILE_NAME_BAND_{band}": f"{name}_{kind}{band}.TIF" for band in counts},
            "FILE_NAME_BAND_ST_B10": f"{name}_ST_B10.TIF",
            "FILE_NAME_QUALITY_L1_PIXEL": f"{name}_QA_PIXEL.TIF",
            "FILE_NAME_QUALITY_L1_RADIOMETRIC_SATURATION": f"{name}_QA_RADSAT.TIF",
        },
        "IMAGE_ATTRIBUTES": {"SPACECRAFT_ID": "LANDSAT_9", "SENSOR_ID": sensor},
        **({group: rescaling} if level == "L2SP" else {}),
        "LEVEL1_RADIOMETRIC_RESCALING": top,
    }
    if form == "json":
        (product / f"{name}_MTL.json").write_text(json.dumps({"LANDSAT_METADATA_FILE": content}))
    elif form == "xml":
        groups = "".join(
            f"<{group}>{''.join(f'<{key}>{value}</{key}>' for key, value in items.items())}</{group}>"
            for group, items in content.items()
        )
        (product / f"{name}_MTL.xml").write_text(f"<LANDSAT_METADATA_FILE>{groups}</LANDSAT_METADATA_FILE>")
    else:
        quoted = [
            f"  GROUP = {group}\n{''.join(f'    {key} = {json.dumps(value)}{chr(10)}' for key, value in items.items())}"
            f"  END_GROUP = {group}\n"
            for group, items in content.items()
        ]
        text = f"GROUP = LANDSAT_METADATA_FILE\n{''.join(quoted)}END_GROUP = LANDSAT_METADATA_FILE\nEND\n"
        (product / f"{name}_MTL.txt").write_text(text)
    return counts


def write_dlr(folder: Path, sensor: str) -> np.ndarray:
    """A Level 2A folder of four bands; gives the counts."""
    name, suffix = {
        "enmap": ("ENMAP01-____L2A-DT0000001867_20220724T104526Z_008_V010303_20230628T165614Z", "TIF"),
        "desis": ("DESIS-HSI-L2A-DT1203190212_025-20191203T021128-V0210", "tif"),
    }[sensor]
    counts = pixels(HEIGHT, WIDTH, 4, "int16")
    counts[2, 3] = -32768
    transform = from_origin(600000, 5800000, 30, 30)
    write_raster(folder / name / f"{name}-SPECTRAL_IMAGE.{suffix}", counts, transform=transform)
    centres, widths = (418.2, 423.9, 1100.5, 2445.1), (6.9, 6.8, 10.1, 8.2)
    if sensor == "enmap":
        codes = np.ones((HEIGHT, WIDTH), np.uint8)
        codes[5, 6], codes[7, 7] = 3, 2  # background, water
        write_raster(folder / name / f"{name}-QL_QUALITY_CLASSES.TIF", codes[..., None], transform=transform)
        bands = "".join(
            f'<bandID number="{number}"><wavelengthCenterOfBand>{centre}</wavelengthCenterOfBand><FWHMOfBand>{width}'
            "</FWHMOfBand><GainOfBand>0.0001</GainOfBand><OffsetOfBand>0</OffsetOfBand></bandID>"
            for number, (centre, width) in enumerate(zip(centres, widths, strict=True), start=1)
        )
    else:
        bands = "".join(
            f"<band><bandNumber>{number}</bandNumber><wavelengthCenterOfBand>{centre}</wavelengthCenterOfBand>"
            f"<wavelengthWidthOfBand>{width}</wavelengthWidthOfBand><gainOfBand>0.0001</gainOfBand>"
            "<offsetOfBand>0.5</offsetOfBand></band>"
            for number, (centre, width) in enumerate(zip(centres, widths, strict=True), start=1)
        )
    extra = "<interiorOrientation><band><bandNumber>1</bandNumber></band></interiorOrientation>"
    content = f"<level_X><specific>{extra}<bandCharacterisation>{bands}</bandCharacterisation></specific></level_X>"
    (folder / name / f"{name}-METADATA.{'XML' if sensor == 'enmap' else 'xml'}").write_text(content)
    return counts


def write_prisma(path: Path, level: str = "L2D", **attributes: Any) -> dict[str, np.ndarray]:
    """Two cubes, their first band not delivered; gives the counts (row, col, band)."""
    cubes = {"vnir": pixels(HEIGHT, WIDTH, 4, "uint16"), "swir": pixels(HEIGHT, WIDTH, 3, "uint16", seed=1)}
    with h5py.File(path, "w") as file:
        for name, cube in cubes.items():
            cube[..., 0] = 0
            cube[4, 5] = 0  # outside the swath
            cube[7, 7, 1] = 0  # one band alone: dark, and valid
            place = f"HDFEOS/SWATHS/PRS_{level}_HCO/Data Fields/{name.upper()}_Cube"
            file[place] = np.ascontiguousarray(cube.transpose(0, 2, 1))
        file[f"HDFEOS/SWATHS/PRS_{level}_PCO/Data Fields/Cube"] = np.zeros((HEIGHT * 6, WIDTH * 6), np.uint16)
        file.attrs["List_Cw_Vnir"] = np.array([0, 972.6, 700.1, 402.4], np.float32)
        file.attrs["List_Fwhm_Vnir"] = np.array([0, 12, 11, 10], np.float32)
        file.attrs["List_Cw_Vnir_Flags"] = np.array([0, 1, 1, 1], np.uint8)
        file.attrs["List_Cw_Swir"] = np.array([0, 2496.9, 943.4], np.float32)
        for key, value in attributes.items():
            file.attrs[key] = value
    return cubes


def write_neon(path: Path, **coordinates: str) -> np.ndarray:
    """Four bands, the third in water vapour, with one missing pixel; gives the counts (row, col, band)."""
    counts = pixels(HEIGHT, WIDTH, 4, "int16")
    counts[3, 4] = -9999
    with h5py.File(path, "w") as file:
        reflectance = file.create_group("HARV/Reflectance")
        reflectance.attrs["Band_Window_1_Nanometers"] = np.array([1340, 1445])
        reflectance.attrs["Band_Window_2_Nanometers"] = np.array([1790, 1955])
        cube = reflectance.create_dataset("Reflectance_Data", data=counts, chunks=(4, 5, 2))
        cube.attrs["Scale_Factor"], cube.attrs["Data_Ignore_Value"] = np.array([10000.0]), np.array([-9999.0])
        spectral = reflectance.create_group("Metadata/Spectral_Data")
        spectral["Wavelength"] = np.array([383.6, 700.1, 1400.2, 2512.2])
        spectral["FWHM"] = np.array([5.5, 5.6, 5.7, 5.8])
        info = "UTM,  1.000,  1.000,  725000.00,  4707000.0,  1.0,  1.0,  18,  North,  WGS-84,  units=Meters, 0"
        for name, text in ({"Map_Info": info, "EPSG Code": "32618"} | coordinates).items():
            reflectance[f"Metadata/Coordinate_System/{name}"] = np.bytes_(text)
    return counts


def write_emit(path: Path, table: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A swath of five bands turned onto its grid; gives the cube and the rows and columns of the table, -1 for none."""
    cube = pixels(HEIGHT, WIDTH, 5) / 100
    cube[3, 4] = -9999
    rng = np.random.default_rng(2)
    rows, cols = rng.integers(-3, HEIGHT, (20, 25)), rng.integers(-3, WIDTH, (20, 25))
    outside = (rows < 0) | (cols < 0)
    rows[outside] = cols[outside] = -1
    rows[10, 10], cols[10, 10] = 3, 4
    with h5netcdf.File(path, "w") as file:
        file.dimensions = {"downtrack": HEIGHT, "crosstrack": WIDTH, "bands": 5}
        file.create_variable(
            "reflectance", ("downtrack", "crosstrack", "bands"), "f4", fillvalue=np.float32(-9999), chunks=(4, 6, 2)
        )[...] = cube
        group = file.create_group("sensor_band_parameters")
        for name, values in (("wavelengths", [381, 500, 760, 1400, 2493]), ("fwhm", [8.4] * 5)):
            group.create_variable(name, ("bands",), "f4")[...] = np.array(values, np.float32)
        group.create_variable("good_wavelengths", ("bands",), "u1")[...] = np.array([1, 1, 1, 0, 1], np.uint8)
        location = file.create_group("location")
        location.dimensions = {"ortho_y": 20, "ortho_x": 25}
        if table:
            for name, place in (("glt_x", cols), ("glt_y", rows)):
                location.create_variable(name, ("ortho_y", "ortho_x"), "i4", fillvalue=0)[...] = (place + 1).astype(
                    np.int32
                )
        file.attrs["geotransform"] = np.array([13.0, 5e-4, 0, 52.4, 0, -5e-4])
        file.attrs["spatial_ref"] = rasterio.CRS.from_epsg(4326).to_wkt()
    return cube, rows, cols
