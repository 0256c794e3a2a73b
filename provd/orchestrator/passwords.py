"""The cluster's root password: from a credential file for good, or from a human for one operation.

What a human types lives here and nowhere else, until its operation is over or the daemon stops.
"""

from provd.domain.hosts import OperationId
from provd.domain.secrets import Secret
from provd.orchestrator.bell import Bell


class ClusterPasswords:
    def __init__(self, standing: Secret | None, bell: Bell) -> None:
        self.standing = standing
        self._given: dict[OperationId, Secret] = {}
        self._bell = bell

    def give(self, operation_id: OperationId, password: Secret) -> None:
        self._given[operation_id] = password
        self._bell.ring()

    def forget(self, operation_id: OperationId) -> None:
        self._given.pop(operation_id, None)

    def of(self, operation_id: OperationId) -> Secret | None:
        return self._given.get(operation_id) or self.standing

    async def wait(self, operation_id: OperationId) -> Secret:
        """Until somebody gives it. A human may be asleep, so there is no deadline here."""
        while True:
            ring = self._bell.next()
            if (password := self.of(operation_id)) is not None:
                return password
            await ring.wait()
