"""In which multiples neurons and hidden channels are kept: as the run file says, or as the device's tiles are wide."""

from __future__ import annotations

from math import lcm

from autocompress.config import RunConfig
from autocompress.devices.load import load_profile
from autocompress.devices.profile import DeviceProfile
from autocompress.pipeline.known import HOST
from autocompress.predictors.hardware import Hardware
from autocompress.shape import ModelShape


def align_of(config: RunConfig, shape: ModelShape) -> int:
    """Return ``search.space.align``; ``auto`` is the narrowest multiple that leaves no tile of any device half empty.

    A width that straddles a tile takes as long as the next whole one: the compiler's panels say where these end
    (``predictors.hardware``), for the bits that the run may choose, at its number of tokens.

    Raises:
        UnsupportedError: The compiler knows no such target.
    """
    space = config.search.space
    if isinstance(space.align, int):
        return space.align
    from autocompress.compiler.target import Target, machine_of  # It takes a second; most runs name a number.

    widest, bits = max(layer.ffn for layer in shape.layers), {*space.attention_bits, *space.ffn_bits}

    def on(profile: DeviceProfile) -> int:
        machine = machine_of(Target.of(None if profile.name == HOST else profile.tvm_target).llvm())
        hardware = Hardware.of(machine, l1d_bytes=0, l2_bytes=None, l3_bytes=None)
        return hardware.alignment(config.task.max_tokens, shape.hidden, widest, bits)

    return lcm(*(on(load_profile(device.profile)) for device in (config.device, *config.fleet)))
