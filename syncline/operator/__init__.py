"""What operators ask and do about rows that did not land: dead letters, parked rows, one row explained."""
