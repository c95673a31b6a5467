-- syncline.key_uuid, written out: the write-db does not have it. convert_to is what the function's escape does.
encode(substr(set_byte(set_byte(sha256(convert_to(@{key}, 'UTF8')), 6, 128), 8, 128), 1, 16), 'hex')::uuid
