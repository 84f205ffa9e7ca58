"""All converters by name."""

from nnunetv2_levit.dataset_conversion.acdc import ACDC
from nnunetv2_levit.dataset_conversion.brain_and_heart import EMIDEC, IBSR18
from nnunetv2_levit.dataset_conversion.converter import Converter
from nnunetv2_levit.dataset_conversion.msd import MSD
from nnunetv2_levit.dataset_conversion.pictures import ISBI2012, ISIC, POLYP
from nnunetv2_levit.dataset_conversion.synapse import SYNAPSE
from nnunetv2_levit.errors import UserError

CONVERTERS: dict[str, Converter] = {
    converter.name: converter for converter in (ACDC, SYNAPSE, ISBI2012, ISIC, POLYP, MSD, IBSR18, EMIDEC)
}


def converter_named(name: str) -> Converter:
    """The converter of that name.

    Raises:
        UserError: there is none.
    """
    if name not in CONVERTERS:
        raise UserError(f"there is no converter {name!r}: choose one of {', '.join(CONVERTERS)}")
    return CONVERTERS[name]


def listing() -> str:
    """Names, expected layouts and splits, for a person."""
    lines = []
    for converter in CONVERTERS.values():
        lines.append(f"{converter.name}: {converter.summary}")
        lines.append(f"  expects {converter.layout}")
        lines.append(f"  splits: {', '.join(converter.schemes)}")
        if converter.test_splits:
            lines.append(f"  test splits: {', '.join(converter.test_splits)}")
    return "\n".join(lines)
