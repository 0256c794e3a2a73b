"""How a host's options stand in their JSON column."""

import json
from ipaddress import ip_address, ip_interface
from typing import Any

import attrs
import cattrs

from provd.domain.hosts import HostOptions, IPAddress, IPInterface

_converter = cattrs.Converter(omit_if_default=True, forbid_extra_keys=True)
_converter.register_structure_hook(IPAddress, lambda text, _: ip_address(text))
_converter.register_structure_hook(IPInterface, lambda text, _: ip_interface(text))
_converter.register_structure_hook_func(lambda kind: kind == IPInterface, lambda text, _: ip_interface(text))


def options_to_json(options: HostOptions) -> str:
    fields: dict[str, Any] = attrs.asdict(
        options, filter=lambda _, value: value is not None, value_serializer=_plain
    )
    return json.dumps(fields)


def options_from_json(text: str) -> HostOptions:
    return _converter.structure(json.loads(text), HostOptions)


def _plain(_: object, __: object, value: object) -> object:
    return str(value) if isinstance(value, IPAddress | IPInterface) else value
