UPDATE sync_parked_row r SET released = true WHERE @{awaiting}
