-- The bytes of a key as the engine knows it. Where a text can be anything (SQL_ASCII) it is not taken for UTF-8.
convert_to(@{key}::text, CASE getdatabaseencoding() WHEN 'SQL_ASCII' THEN 'SQL_ASCII' ELSE 'UTF8' END)
