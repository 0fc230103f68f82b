"""Click commands, one file each: parsing and printing only."""
