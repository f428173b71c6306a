"""Writes the PrometheusRule from the plain rule file: `python -m devtools.alerts`."""

from pathlib import Path

FOLDER = (
    Path(__file__).parent.parent / "infrastructure" / "kubernetes" / "prometheus" / "monitoring"
)
RULES = FOLDER / "rules.yaml"
PROMETHEUS_RULE = FOLDER / "prometheusrule.yaml"

_HEAD = """\
# Made from rules.yaml by `python -m devtools.alerts`: the same rules, for the Prometheus Operator.
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: prometheus-backup
  labels:
    # What the operator's Prometheus selects rules by; kube-prometheus-stack wants its release, too.
    prometheus: k8s
    role: alert-rules
    release: kube-prometheus-stack
spec:
"""


def prometheus_rule(rules: str) -> str:
    """Return the PrometheusRule with these rules, the text of a rule file."""
    body = rules[rules.index("groups:\n") :]
    return _HEAD + "".join(f"  {line}" if line.strip() else line for line in body.splitlines(True))


def main() -> None:
    """Write the file."""
    PROMETHEUS_RULE.write_text(prometheus_rule(RULES.read_text()))


if __name__ == "__main__":
    main()
