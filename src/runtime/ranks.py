"""The processes that train together, and what a launcher said to this one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Mapping, Optional

from ..errors import UserError
from .plain_numbers import whole_number

# What each launcher sets: MindSpore's dynamic cluster (msrun, or scripts/launch.py on 2.0), a rank
# table, OpenMPI. MindSpore reads the number of the process itself.
_ROLE, _CLUSTER_SIZE = "MS_ROLE", "MS_WORKER_NUM"
_RANK, _SIZE = "RANK_ID", "RANK_SIZE"
_MPI_RANK, _MPI_SIZE = "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"
_MPI_LOCAL_RANK = "OMPI_COMM_WORLD_LOCAL_RANK"


@dataclass(frozen=True)
class World:
    """The processes that train together: `size` of them, this one has number `rank`."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """This process writes the files of the run."""
        return self.rank == 0


ALONE = World()


@dataclass(frozen=True)
class RankEnvironment:
    """What the launcher said: how many processes; number and device of this one (None: nothing)."""

    size: int
    rank: Optional[int]
    device_id: Optional[int]


def read_rank_environment(environ: Mapping[str, str]) -> Optional[RankEnvironment]:
    """What launcher started this process, by its variables; None: one process alone.

    Raises:
        UserError: a variable that is missing or no number.
    """
    rank_name = _RANK
    if _ROLE in environ:
        size = _integer(environ, _CLUSTER_SIZE)
    elif _MPI_SIZE in environ:
        size = _integer(environ, _MPI_SIZE)
        rank_name = _MPI_RANK
        _integer(environ, _MPI_RANK)
    elif _SIZE in environ:
        size = _integer(environ, _SIZE)
        if size > 1 and environ.get("RANK_TABLE_FILE", "") == "":
            raise UserError(
                f"{_SIZE} {size}: neither RANK_TABLE_FILE nor {_ROLE} is set; start several "
                "processes with scripts/launch.py, msrun or mpirun"
            )
        if size > 1 and _integer(environ, _RANK) >= size:
            raise UserError(f"{_RANK} {environ[_RANK]}: must be below {_SIZE} {size}")
    else:
        return None
    if size == 1 and environ.get(_ROLE) != "MS_SCHED":
        return None
    device_name = "DEVICE_ID" if "DEVICE_ID" in environ else _MPI_LOCAL_RANK
    rank, device_id = (
        _integer(environ, name) if name in environ else None for name in (rank_name, device_name)
    )
    return RankEnvironment(size, rank, device_id)


def _integer(environ: Mapping[str, str], name: str) -> int:
    text = environ.get(name, "")
    try:
        return whole_number(text)
    except ValueError as error:
        raise UserError(
            f"{name} {text[:40]!r}: the launcher must set it to a number ({error}); start several "
            "processes with scripts/launch.py, msrun or mpirun"
        ) from error
