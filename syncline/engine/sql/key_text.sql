-- The key that has these bytes, given in hex.
convert_from(decode(@{digits}, 'hex'), CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)
