"""The single looks of a rehearsal: each is a function of a situation, and knows nothing else.

None instead of a check: the question does not arise for this host.
"""

from provd.domain.rehearsal import Check, Result


def fine(name: str, what: str, evidence: str = "") -> Check:
    return Check(name=name, result=Result.FINE, what=what, evidence=evidence)


def but(name: str, what: str, evidence: str = "", mend: str = "") -> Check:
    return Check(name=name, result=Result.BUT, what=what, evidence=evidence, mend=mend)


def unknown(name: str, what: str, evidence: str = "", mend: str = "") -> Check:
    """An operator who knows better may go on."""
    return Check(name=name, result=Result.UNKNOWN, what=what, evidence=evidence, mend=mend, overridable=True)


def no(name: str, what: str, evidence: str = "", mend: str = "") -> Check:
    """The operator's loss, and so the operator's decision."""
    return Check(name=name, result=Result.NO, what=what, evidence=evidence, mend=mend, overridable=True)


def never(name: str, what: str, evidence: str = "", mend: str = "") -> Check:
    """It would come to nothing, or cost others more than the operator can mean to give."""
    return Check(name=name, result=Result.NO, what=what, evidence=evidence, mend=mend)
