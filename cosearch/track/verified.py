"""What verification found, beside the search in MLflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cosearch.track.location import Location, explain, probe, quiet
from cosearch.track.records import finite
from cosearch.track.tracker import PARENT, log_batches
from cosearch.verification import ModelFigures, Verification

__all__ = ["log_verification"]

MODEL = "cosearch.model"


def log_verification(location: Location, run_id: str, verification: Verification, files: Sequence[Path]) -> str | None:
    """Adds a verification to the search's run: its files, closing figures, and each model's to its members' runs.

    The run's state and parameters stay as they are; a later verification's figures come after the earlier ones'.

    Args:
        location: where the search was written to.
        run_id: of the search's run.
        verification: what was found.
        files: ``verified.json`` and its page.

    Returns:
        A warning, if MLflow fails; the run folder holds everything.
    """
    with quiet():
        try:
            probe(location)
            from mlflow import MlflowClient

            client = MlflowClient(tracking_uri=location.uri)
            run = client.get_run(run_id)
            for file in files:
                client.log_artifact(run_id, str(file))
            log_batches(client, run_id, metrics=_points(_closing(verification)), parameters={})
            members = {model.model_id: _of_model(model) for model in verification.models}
            found = client.search_runs([run.info.experiment_id], f"tags.`{PARENT}` = '{run_id}'", max_results=1000)
            for child in found:
                figures = members.get(child.data.tags.get(MODEL, ""))
                if figures:
                    log_batches(client, child.info.run_id, metrics=_points(figures), parameters={})
        except Exception as error:  # MLflow must never stop a verification, whatever it raises
            return f"{explain(location, error)} (verified.json holds everything; verify again to log it)"
    return None


def _points(values: Mapping[str, float]) -> list[tuple[str, float, int, int]]:
    return [(name, value, 0, 0) for name, value in finite(values).items()]


def _closing(verification: Verification) -> dict[str, float]:
    closing = {
        f"verified_{verdict}": float(verification.count(verdict)) for verdict in ("survives", "falls", "open", "failed")
    }
    closing |= {f"verified_tau_{name}": tau for name, tau in verification.tau.items() if tau is not None}
    return closing


def _of_model(model: ModelFigures) -> dict[str, float]:
    figures: dict[str, float] = {}
    for prefix, estimates in (("verified", model.estimates), ("test", model.test)):
        for name, found in estimates.items():
            figures |= {
                f"{prefix}_{name}": found.mean,
                f"{prefix}_{name}_low": found.low,
                f"{prefix}_{name}_high": found.high,
            }
    return figures
