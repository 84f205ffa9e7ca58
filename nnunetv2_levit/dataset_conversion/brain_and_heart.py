"""IBSR18 (brain MRI) and EMIDEC (late-enhancement cardiac MRI): one folder a case."""

import re

from nnunetv2_levit.dataset_conversion.cases import DatasetDescription, RawCase
from nnunetv2_levit.dataset_conversion.converter import ConversionRequest, Converter, Plan
from nnunetv2_levit.dataset_conversion.nifti import find_nifti
from nnunetv2_levit.dataset_conversion.source_files import entries
from nnunetv2_levit.errors import UserError

IBSR18_DESCRIPTION = DatasetDescription(
    name="IBSR18",
    channel_names=("T1",),
    labels={"background": 0, "CSF": 1, "GM": 2, "WM": 3},
    citation="Internet Brain Segmentation Repository, Center for Morphometric Analysis, Massachusetts General Hospital",
    license="research use",
    reference="https://www.nitrc.org/projects/ibsr",
    published_cases=18,
)
EMIDEC_DESCRIPTION = DatasetDescription(
    name="EMIDEC",
    channel_names=("LGE",),
    labels={"background": 0, "cavity": 1, "normal myocardium": 2, "infarction": 3, "no-reflow": 4},
    citation="Lalande et al., Data 5(4):89, 2020, doi 10.3390/data5040089",
    license="CC BY-NC-SA 4.0",
    reference="https://emidec.com/dataset",
    published_cases=100,
)


def _plan_ibsr18(request: ConversionRequest) -> Plan:
    cases, left_out = [], {}
    for folder in entries(request.source):
        if not re.fullmatch(r"IBSR_\d+", folder.name) or not folder.is_dir():
            left_out[str(folder)] = "no folder named IBSR_NN"
            continue
        image, label = find_nifti(folder, folder.name), find_nifti(folder, f"{folder.name}_seg")
        if image is None:
            raise UserError(f"{folder} holds no image {folder.name}.nii.gz: restore it from the release")
        if label is None:
            left_out[str(folder)] = "no _seg file: a test case of the challenge"
            continue
        cases.append(RawCase(folder.name, (image,), label, patient=folder.name))
    return Plan(IBSR18_DESCRIPTION, cases, left_out=left_out)


def _plan_emidec(request: ConversionRequest) -> Plan:
    cases, left_out = [], {}
    for folder in entries(request.source):
        match = re.fullmatch(r"Case_([NP])(\d+)", folder.name)
        if not match or not folder.is_dir():
            left_out[str(folder)] = "no folder named Case_PNNN or Case_NNNN"
            continue
        image, label = find_nifti(folder / "Images", folder.name), find_nifti(folder / "Contours", folder.name)
        if image is None or label is None:
            missing = "Images" if image is None else "Contours"
            raise UserError(f"{folder} lacks {missing}/{folder.name}.nii.gz: restore it from the release")
        group = {"N": "normal", "P": "pathological"}[match[1]]
        cases.append(RawCase(folder.name, (image,), label, patient=folder.name, group=group))
    return Plan(EMIDEC_DESCRIPTION, cases, left_out=left_out)


IBSR18 = Converter(
    name="ibsr18",
    summary="T1 brain MRI: cerebrospinal fluid, grey and white matter",
    layout="IBSR_NN/IBSR_NN.nii.gz with IBSR_NN_seg.nii.gz",
    plan=_plan_ibsr18,
)
EMIDEC = Converter(
    name="emidec",
    summary="late-enhancement cardiac MRI: cavity, myocardium, infarction, no-reflow",
    layout="Case_PNNN/ and Case_NNNN/ with Images/Case_PNNN.nii.gz and Contours/Case_PNNN.nii.gz",
    plan=_plan_emidec,
)
