"""`python3 -m dev.demo`: everything from an empty machine to embeddings; may be run again at any time."""

import argparse
import time
from pathlib import Path

from dev.console import main_guard
from dev.demo.install import NAMESPACE as OPERATOR_NAMESPACE
from dev.demo.install import install_chart
from dev.demo.model import ensure_model
from dev.demo.story import apply_sample, run_client, watch_until_ready
from dev.demo.target import Target, current_context, local_cluster


def main() -> int:
    """Runs the demo."""
    parser = argparse.ArgumentParser("python3 -m dev.demo", description="The main job, end to end.")
    parser.add_argument("--cluster", choices=["local", "current"], default="local", help="default: local")
    parser.add_argument(
        "--only-install", action="store_true", help="stop once the operator runs and the model is there"
    )
    options = parser.parse_args()
    started = time.monotonic()
    target = local_cluster() if options.cluster == "local" else current_context()
    install_chart(target)
    if options.only_install:
        ensure_model()
        return 0
    apply_sample(target)
    watch_until_ready(target)
    run_client(target)
    print(_farewell(target, time.monotonic() - started), flush=True)
    return 0


def _farewell(target: Target, seconds: float) -> str:
    export = (
        f"  export KUBECONFIG={target.kubeconfig} PATH={Path(target.kubectl[0]).parent}:$PATH\n"
        if target.kubeconfig
        else ""
    )
    return f"""Done after {seconds:.0f} s. Look around:
{export}  kubectl get emb -o wide                       what it serves, how loaded it is
  kubectl describe emb minilm                   conditions and events, in words
  kubectl get pods -o wide                      READINESS GATES shows the operator's gate
  kubectl logs -n {OPERATOR_NAMESPACE} deploy/sluice-operator
  kubectl port-forward svc/minilm 8001          then: curl localhost:8001/health
Clean up:
  kubectl delete emb minilm                     the service alone
  make cluster-down                             everything, the cluster too
"""


if __name__ == "__main__":
    main_guard(main)
