"""`plait demo`: three rounds on real 5' splice-site measurements, the methods side by side, one report."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from plait.bootstrap.home import Home, write_text
from plait.campaign.report_data import ReportData
from plait.design.errors import NotFoundError

DATASET = "brca2-splice-sites"
SCENARIO = "splice"
WORKERS = [2, 0]
"""The prior and round 1 train through Ray Train on two workers, later rounds in this process."""


@dataclass(frozen=True)
class Demo:
    """What the demo left behind."""

    campaign: str
    report: Path
    data: ReportData


def demo(home: Home, *, rounds: int = 3, seed: int = 0, report: str | Path | None = None) -> Demo:
    """Run the demo in a home; what is finished there is not done again.

    The offline set is 2,000 of replicate 1's readings at or below its 90th percentile, the prior is pre-trained on
    natural human splice sites, and the lab answers with replicate 2's readings.

    Args:
        home: Where everything is kept.
        rounds: Rounds of 96 designs.
        seed: Of the offline draw and of the campaign.
        report: The HTML file; report.html in the working directory by default.
    """
    from plait.bootstrap.home import find_lab
    from plait.campaign.comparison import compare
    from plait.campaign.datasets import import_dataset

    output = Path(report or "report.html").absolute()
    if not output.parent.is_dir():
        raise NotFoundError(f"there is no folder {output.parent}", hint="choose another --report")
    scenario, name = find_lab(SCENARIO), f"demo-seed{seed}-rounds{rounds}"
    dataset = f"{DATASET}-seed{seed}"
    with home.registry.begin() as uow:
        is_new = name not in {c.name for c in uow.campaigns()}
    if is_new:
        import_dataset(
            home.registry,
            scenario.offline_readings(seed=seed),
            dataset=dataset,
            alphabet="dna",
            unit=scenario.unit,
            goal="maximize",
            mode="new",
            actor=home.settings.actor,
        )
        corpus = home.path / "natural-splice-sites.txt"
        write_text(corpus, "\n".join(scenario.corpus()) + "\n")
        home.campaign.create(
            {
                "name": name,
                "dataset": dataset,
                "seed": seed,
                "rounds": rounds,
                "objective": {"assay": "BRCA2 exon 17 inclusion", "goal": "maximize"},
                "space": {"template": scenario.template},
                "prior": {"corpus": str(corpus)},
                "workers": WORKERS,
            }
        )
    home.campaign.run(name, lab=SCENARIO)
    compare(home.ports, name)
    return Demo(name, output, home.report(name, output))
