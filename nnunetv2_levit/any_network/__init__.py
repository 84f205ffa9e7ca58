"""Any 2D network by name: registered here, importable, segmentation_models.pytorch's (with timm's encoders), MONAI's.

`names.find_network` turns a name and settings into a `NamedNetwork`. `adapter.AdaptedNetwork` is the class with
nnU-Net's own constructor that plans name for every network which has another one. `adaptation.find_adaptation` finds on
shapes alone what that class has to do. `memory` counts what a training step needs, on shapes alone too.
"""

ADAPTER = "nnunetv2_levit.any_network.adapter.AdaptedNetwork"
"""What plans name for a network whose constructor is not nnU-Net's."""
