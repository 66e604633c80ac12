"""The packages of the wheel, which setup.cfg cannot name: those found, and benchmarks/ below diffclip_dist."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["diffclip_dist*", "shards*"]), "diffclip_dist.benchmarks"],
    package_dir={"diffclip_dist.benchmarks": "benchmarks"},
)
