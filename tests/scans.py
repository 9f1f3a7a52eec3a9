"""Tiny DICOM files; the patient in them must never be shown."""

from __future__ import annotations

import io
from typing import Any

import numpy as np

PATIENT, NUMBER = "Secret^Patient", "ID-4711"


def dataset(values: np.ndarray, bits: int = 0, syntax: str = "1.2.840.10008.1.2.1", **elements: Any) -> Any:
    from pydicom.dataset import Dataset, FileMetaDataset

    meta, made = FileMetaDataset(), Dataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPInstanceUID = syntax, "1.2.3"
    meta.MediaStorageSOPClassUID = made.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    made.file_meta, made.SOPInstanceUID = meta, "1.2.3"
    made.PatientName, made.PatientID, made.PatientBirthDate = PATIENT, NUMBER, "19700101"
    colours = values.ndim == 3 and values.shape[-1] == 3
    made.Rows, made.Columns = values.shape[-3:-1] if colours else values.shape[-2:]
    made.SamplesPerPixel = 3 if colours else 1
    made.PhotometricInterpretation = "RGB" if colours else "MONOCHROME2"
    if colours:
        made.PlanarConfiguration = 0
    elif values.ndim == 3:
        made.NumberOfFrames = len(values)
    made.BitsAllocated = values.dtype.itemsize * 8
    made.BitsStored = bits or made.BitsAllocated
    made.HighBit = made.BitsStored - 1
    made.PixelRepresentation = int(values.dtype.kind == "i")
    data = values.tobytes()
    made.PixelData = data + bytes(len(data) % 2)
    made["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
    for keyword, value in elements.items():
        setattr(made, keyword, value)
    return made


def saved(made: Any) -> bytes:
    file = io.BytesIO()
    made.save_as(file, enforce_file_format=True)
    return file.getvalue()
