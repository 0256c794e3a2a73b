"""`systemctl`, for the services that Proxmox VE's clusters consist of; any other unit always runs."""

import sys

from provd.simulator.cluster import services
from provd.simulator.cluster.machine import Machine

STARTS = ("start", "restart", "reload-or-restart", "try-restart")
WANTS = "/etc/systemd/system/multi-user.target.wants"


def systemctl(machine: Machine, words: list[str]) -> int:
    """Returns the exit status. A verb that is not known here succeeds quietly."""
    verb, *units = [word for word in words if not word.startswith("-")] or [""]
    names = [unit.removesuffix(".service") for unit in units]
    quiet = "-q" in words or "--quiet" in words
    if verb in ("is-active", "is-failed", "is-enabled"):
        return _tell(machine, verb, names, quiet)
    ours = [name for name in names if name in services.UNITS]
    if verb in ("disable", "mask", "enable", "unmask"):
        enabled = verb in ("enable", "unmask")
        _set_enabled(machine, ours, enabled)
        if "--now" not in words:
            return 0
        verb = "start" if enabled else "stop"
    if verb == "stop":
        for name in ours:
            services.stop(machine, name)
    if verb not in STARTS:
        return 0
    failed = [name for name in ours if not _start(machine, verb, name)]
    for name in failed:
        sys.stderr.write(
            f"Job for {name}.service failed because the control process exited with error code.\n"
            f'See "systemctl status {name}.service" and "journalctl -xeu {name}.service" for details.\n'
        )
    return 1 if failed else 0


def _start(machine: Machine, verb: str, name: str) -> bool:
    # What is reloaded instead of restarted goes on meanwhile.
    if verb in ("restart", "try-restart"):
        services.stop(machine, name)
    return services.start(machine, name)


def _set_enabled(machine: Machine, names: list[str], enabled: bool) -> None:
    with machine.edit() as own:
        for name in names:
            if enabled and name in own.disabled_units:
                own.disabled_units.remove(name)
                sys.stderr.write(
                    f"Created symlink '{WANTS}/{name}.service' → '/usr/lib/systemd/system/{name}.service'.\n"
                )
            elif not enabled and name not in own.disabled_units:
                own.disabled_units.append(name)
                sys.stderr.write(f"Removed '{WANTS}/{name}.service'.\n")


def _tell(machine: Machine, verb: str, names: list[str], quiet: bool) -> int:
    """One word per unit; the status is that of the best one (systemctl(1))."""
    own = machine.read()

    def word(name: str) -> str:
        if verb == "is-enabled":
            return "disabled" if name in own.disabled_units else "enabled"
        if name in own.failed_units:
            return "failed"
        return "active" if services.is_active(machine, name) else "inactive"

    said = [word(name) for name in names]
    if not quiet:
        print("\n".join(said))
    wanted = {"is-active": "active", "is-failed": "failed", "is-enabled": "enabled"}[verb]
    if wanted in said:
        return 0
    return 3 if verb == "is-active" else 1
