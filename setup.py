"""Names the packages of an installation; everything else is in pyproject.toml.

The code lies in src/ and imports itself relatively, so the checkout runs it as `src` and an
installation as `mindspore_classifiers`. setuptools finds no packages under another name by itself.
"""

from setuptools import find_packages, setup

NAME = "mindspore_classifiers"

if __name__ == "__main__":
    setup(packages=[NAME, *(f"{NAME}.{package}" for package in find_packages("src"))])
