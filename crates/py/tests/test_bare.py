"""What must work, or be said, without torch and without NumPy."""

import subprocess
import sys
import textwrap
import unittest

import simdino


def run(script):
    """Runs a script in a Python that finds neither torch nor NumPy; returns what it prints."""
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
