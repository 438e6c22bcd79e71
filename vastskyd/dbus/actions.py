"""The kinds of act that polkit is asked about; packaging/org.vastsky.vastsky1.policy says what
people are told, and who may without a rule."""

from enum import StrEnum

PREFIX = "org.vastsky.vastsky1."


class Action(StrEnum):
    CREATE_VOLUME = "create-volume"
    ATTACH_VOLUME = "attach-volume"
    CHANGE_VOLUME = "change-volume"
    FAILOVER_VOLUME = "failover-volume"
    DESTROY_DATA = "destroy-data"
    MANAGE_DISKS = "manage-disks"
    MANAGE_NODES = "manage-nodes"
    MANAGE_CLUSTER = "manage-cluster"
    CHANGE_CLUSTER = "change-cluster"
    CANCEL_JOB = "cancel-job"

    @property
    def id(self) -> str:
        """polkit's name for it."""
        return PREFIX + self.value
