"""What is imported when: the command line answers at once, and kinema needs no torchvision."""

import json
import resource
import subprocess
import sys

HEAVY = {"torch", "numpy", "tyro", "rich", "av", "cv2", "pydantic", "PIL", "jinja2", "scipy", "sklearn", "fastapi"}


def python(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_help_imports_nothing_heavy() -> None:
    loaded = python(
        "import json, sys; from kinema.cli import main; main(['--help']);"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    assert not HEAVY & set(json.loads(loaded.splitlines()[-1]))


def test_help_is_quick() -> None:
    """Processor time, for the machine may be busy: typically 0.05 s, and seconds when torch is imported."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    python("from kinema.cli import main; main(['--help'])")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.3


def test_verbs_explain_themselves_without_torch() -> None:
    for verb in ("generate", "evaluate", "units", "study", "list", "demo", "prepare"):
        loaded = python(
            "import sys, contextlib; from kinema.cli import main\n"
            f"with contextlib.suppress(SystemExit): main(['{verb}', '--help'])\n"
            "print('torch' in sys.modules)"
        )
        assert loaded.splitlines()[-1] == "False", verb


def test_workers_that_prepare_footage_need_no_torch() -> None:
    """Spawned processes start in a fraction of the time."""
    modules = ("media", "shots", "stabilise", "prepare", "performers", "dataset")
    imports = "; ".join(f"import kinema.data.{module}" for module in modules)
    assert python(f"import sys; {imports}; print('torch' in sys.modules)").strip() == "False"


def test_kinema_imports_where_torchvision_is_absent_or_broken() -> None:
    """A torchvision that does not fit torch raises on import; nothing of ours notices. Torch's compiler waits until asked."""
    python(
        "import sys; sys.modules['torchvision'] = None\n"
        "import kinema; kinema.load, kinema.SYSTEMS\n"
        "import kinema.training.trainer, kinema.cli.train, kinema.cli.sample, kinema.data.prepare\n"
        "for system in kinema.SYSTEMS: kinema.SYSTEMS[system]\n"
        "assert 'torch._dynamo' not in sys.modules\n"
    )
