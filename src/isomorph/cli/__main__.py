"""`python -m isomorph.cli`."""
from isomorph.cli import main

main()
