"""The one error of the simulated installer."""


class InstallerRefused(Exception):
    """The installer would stop here and leave a root shell on the console; the text is what it prints."""
