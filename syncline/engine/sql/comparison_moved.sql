UPDATE sync_comparison SET part = $2, after = $3::uuid[] WHERE table_name = $1
