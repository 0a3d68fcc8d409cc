"""`build.py sweep`: every row built, proven and exported on a disk that can't hold them all."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from builder.commands.building import builder_of, compatible_rows
from builder.engine.client import connect
from builder.errors import InvalidInput, ToolkitError, ValidationFailed
from builder.folders import Folders
from builder.plan import Plan
from builder.records import BuildRecord, Outcome, ValidationRecord, read_record
from builder.sweep import Swept, together
from builder.sweep import sweep as run_sweep
from builder.talk import Talk, human_seconds
from validate.command import conclude, parse_tiers
from validate.host import describe_host, suite_hash
from validate.run import Tier, reusable, validate_image
from validate.verdict import TIERS

__all__ = ["Proof", "sweep"]


def sweep(arguments: argparse.Namespace, root: Path) -> int:
    """Go through the rows stack by stack; an error at the end names everything that went wrong."""
    builder = builder_of(arguments, root)
    proof = Proof(
        out=Folders(root).out,
        tiers=parse_tiers(arguments.tier),
        require=parse_tiers(arguments.require),
        fresh=arguments.fresh,
        talk=builder.talk,
    )
    rows = compatible_rows(root, arguments.pattern)
    export = Path(arguments.export).absolute() if arguments.export else None
    if arguments.no_validate:
        swept = run_sweep(builder, rows, evict=arguments.evict, export=export)
        print(json.dumps([record.model_dump(mode="json") for record in swept.records], indent=2))
    else:
        swept = run_sweep(
            builder,
            rows,
            evict=arguments.evict,
            export=export,
            prove=proof.prove,
            proven=proof.proven,
        )
        swept.errors.extend(_verdict(proof.records, swept, proof.out))
    if swept.errors:
        raise together(swept.errors)
    return 0


def _verdict(records: Sequence[ValidationRecord], swept: Swept, out: Path) -> list[ToolkitError]:
    """Write the reports and print the table of what was swept."""
    try:
        conclude(records, [plan.row.id for plan in swept.plans], out)
    except ValidationFailed as error:
        return [error]
    return []


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Validation as a sweep wants it: done now, or known to hold although the image is gone."""

    out: Path
    tiers: Sequence[Tier]
    require: Sequence[Tier]
    fresh: bool
    talk: Talk
    records: list[ValidationRecord] = field(default_factory=list)

    def prove(self, plan: Plan, record: BuildRecord) -> bool:
        """Validate the image; whether it passed."""
        self.talk.line(f"{plan.row.id}: validating {record.reference}")
        validated = validate_image(
            plan.record,
            record,
            self.out,
            tiers=self.tiers,
            require=self.require,
            fresh=self.fresh,
            talk=self.talk.line,
        )
        self.talk.line(
            f"{plan.row.id}: {validated.verdict.value} in {human_seconds(validated.seconds)}"
        )
        self.records.append(validated)
        return validated.verdict is Outcome.PASSED

    def proven(self, plan: Plan, record: BuildRecord) -> bool:
        """Whether an earlier proof of this digest would be reused if the image were here."""
        if self.fresh:
            return False
        known = None
        with suppress(InvalidInput):
            known = read_record(self.out / plan.row.id / "validation.json", ValidationRecord)
        if known is None:
            return False
        with closing(connect()) as client:
            host = describe_host(client)
        holds = reusable(
            known,
            record,
            suite_hash(),
            tuple(tier for tier in TIERS if tier in {*self.tiers, *self.require}),
            host,
            self.require,
            datetime.now(timezone.utc),
        )
        if holds:
            self.records.append(known)
        return holds
