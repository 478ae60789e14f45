"""What flows are made of: one file per AWS capability, every public function a retrying Prefect task."""
