((((get_byte(uuid_send(@{id}), 0) << 8) | get_byte(uuid_send(@{id}), 1)) >> 2))
