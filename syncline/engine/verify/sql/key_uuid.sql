-- syncline.key_uuid, written out: the write-db does not have it. It is made of a key's bytes.
encode(substr(set_byte(set_byte(sha256(@{bytes}), 6, 128), 8, 128), 1, 16), 'hex')::uuid
