#!/usr/bin/env bash
# From nothing to an answer with the commands that the wheel brings, which are in PATH.
set -euo pipefail
FOLDER=$(mktemp -d)
trap 'rm -rf "$FOLDER"' EXIT
cd "$FOLDER"
# Nothing of a checkout.
unset PYTHONPATH
hccm-make-demo --output_dir=shop --items=60 --users=20 --impressions=1500
hccm-extract-feature-maps --items=shop/items.csv --image_dir=shop/images \
	--output_dir=maps --flagfile=demo_feature_maps
hccm-build-examples --items=shop/items.csv --impressions=shop/impressions.csv \
	--output_dir=data
hccm-train --flagfile=configs/demo.flags --data_dir=data --feature_maps=maps \
	--run_dir=run --epochs=1 --noverdict --export_dir=saved_models/hccm
hccm-ask saved_models/hccm/1 run/request.json
