"""Tests what works, and which errors are raised, without torch and without NumPy."""

import ast
import subprocess
import sys
import textwrap
import unittest

import simdino


def run(script):
    """Runs a script in a Python process that finds neither torch nor NumPy; returns its output."""
    hide = """
        import sys
        class Hidden:
            def find_spec(self, name, path=None, target=None):
                if name in ("numpy", "torch"):
                    raise ModuleNotFoundError(f"No module named {name!r}")
        sys.meta_path.insert(0, Hidden())
    """
    code = textwrap.dedent(hide) + textwrap.dedent(script)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    return done.stdout + done.stderr


class Bare(unittest.TestCase):
    def test_the_package_imports_neither(self):
        said = run(
            """
            import simdino, simdino.track
            print(simdino.__version__, {"numpy", "torch"} & set(sys.modules))
            """
        )
        self.assertEqual(said, f"{simdino.__version__} set()\n")

    def test_each_part_says_what_it_needs(self):
        for module, needed in (("data", "NumPy"), ("losses", "torch >= 2.1")):
            said = run(
                f"""
                try:
                    import simdino.{module}
                except ImportError as error:
                    print(error)
                """
            )
            self.assertRegex(said, f"^simdino.{module} needs {needed}.* pip install")

    def test_the_files_of_a_typed_package_are_there(self):
        from importlib.resources import files

        for name in ("py.typed", "_native.pyi"):
            self.assertTrue(files("simdino").joinpath(name).is_file(), name)

    def test_the_examples_of_the_documentation_are_python(self):
        from support import ROOT

        text = (ROOT / "docs/PYTHON.md").read_text()
        blocks = [part.split("```")[0] for part in text.split("```python\n")[1:]]
        self.assertGreaterEqual(len(blocks), 5)
        used = set()
        for block in blocks:
            lines = [line for line in block.splitlines() if not line.startswith("!")]
            tree = ast.parse("if True:\n" + "\n".join(f"    {line}" for line in lines))
            for node in ast.walk(tree):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("simdino"):
                    used.update((node.module, alias.name) for alias in node.names)
        for module, name in sorted(used):
            source = ROOT / "crates/py/python" / module.replace(".", "/") / "__init__.py"
            self.assertIn(f'"{name}"', source.read_text(), f"{module} exports no {name}")
