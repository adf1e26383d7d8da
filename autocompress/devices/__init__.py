"""Hardware as data: what a device is, read from YAML or from the machine itself."""

from autocompress.devices.detect import detect_host, write_profile
from autocompress.devices.load import list_profiles, load_profile, read_profile
from autocompress.devices.paths import data_folders, home
from autocompress.devices.profile import Caches, CoreKind, DeviceProfile

__all__ = [
    "Caches",
    "CoreKind",
    "DeviceProfile",
    "data_folders",
    "detect_host",
    "home",
    "list_profiles",
    "load_profile",
    "read_profile",
    "write_profile",
]
