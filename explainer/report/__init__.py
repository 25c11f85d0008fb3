"""Pictures and tables; takes arrays and result files, nothing else of ours."""
