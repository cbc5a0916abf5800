set -eu
python3 -m venv .venv
. .venv/bin/activate
pip install --quiet --no-index --find-links "$WHEELS" pytest
! pytest -q --junit-xml before.xml
sed -i 's/ + 1//' shop/__init__.py
pytest -q --junit-xml after.xml
