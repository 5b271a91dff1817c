"""Validates the Indexed Job against the schemas of Kubernetes, and its command against its own number of pods.

    pip install kubernetes-validate
    python scripts/batch/kubernetes_test.py

Every minor version that the package knows from 1.29 on, the first with `backoffLimitPerIndex` on by default. Properties that a
schema does not know are errors, and a manifest that is spoilt in each of four ways must be refused.
"""

import copy
import pathlib

import kubernetes_validate
import yaml

MANIFEST = pathlib.Path(__file__).resolve().parent / "indexed-job.yaml"
OLDEST = (1, 29)


def number(version):
    return tuple(int(part) for part in version.split(".")[:2])


def spoilt(job):
    """Copies of the manifest with a mistake each."""
    mistakes = {
        "a misspelt key": lambda job: job["spec"].update(completion=32),
        "a number as text": lambda job: job["spec"].update(completions="32"),
        "a container without a name": lambda job: job["spec"]["template"]["spec"]["containers"][0].pop("name"),
        "a volume that is a list": lambda job: job["spec"]["template"]["spec"].update(volumes=[[]]),
    }
    for name, spoil in mistakes.items():
        other = copy.deepcopy(job)
        spoil(other)
        yield name, other


def main():
    job = yaml.safe_load(MANIFEST.read_text())
    known = sorted(set(kubernetes_validate.utils.all_versions()), key=number)
    versions = [version for version in known if number(version) >= OLDEST]
    assert versions, known
    for version in versions:
        kubernetes_validate.validate(job, version, strict=True)
        for name, other in spoilt(job):
            try:
                kubernetes_validate.validate(other, version, strict=True)
            except kubernetes_validate.ValidationError:
                continue
            raise SystemExit(f"{name}: Kubernetes {version}'s schema accepts it")
    [container] = job["spec"]["template"]["spec"]["containers"]
    command = container["command"]
    shard = command[command.index("--shard") + 1]
    assert shard == f"auto/{job['spec']['completions']}", f"{shard} of {job['spec']['completions']} completions"
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]}
    print(f"{MANIFEST.name} is valid in Kubernetes {', '.join(versions)}")


if __name__ == "__main__":
    main()
