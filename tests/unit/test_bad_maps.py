"""Bad map documents: each is refused with the line of the fault, marked `# !` here, and with the fix."""

import pytest

from syncline.errors import MapInvalid
from syncline.maps.document import read_map

HEAD = "version: 1\nname: shop\ntables:\n"
ITEMS = HEAD + "  items:\n    source: item\n    columns: {title: text, code: text}\n"
"""A map to which cases add the lines of a further table."""
TAGS = ITEMS + "  tags: {source: tag}\n"

BAD: dict[str, tuple[str, str, str, str]] = {
    # name: (document, path, part of the problem, part of the fix)
    # What is no YAML, or more than YAML has to be.
    "an open quote": (HEAD + '  items:\n    source: "item\n', "", "no YAML", "Check quotes"),
    "an open bracket": (HEAD + "  items:\n    key: [a, b\n    source: item\n", "", "no YAML", "Check quotes"),
    "a tab": (HEAD + "  items:\n\tsource: item # !\n", "", "no YAML", "indentation"),
    "a line too far left": (HEAD + "  items:\n    source: item\n   key: id # !\n", "", "no YAML", "indentation"),
    "a colon in a text": (HEAD + "  items:\n    source: item\n    present: kind = ': a' and: b # !\n", "", "no YAML", ""),
    "a stray character": (HEAD + "  items:\n    source: @item # !\n", "", "no YAML", "Check quotes"),
    "a control character": (HEAD + "  items:\n    source: it\x07em # !\n", "", "not allowed", "Leave it out"),
    "two documents": (ITEMS + "--- # !\nversion: 1\n", "", "second document", "one map"),
    "a tag": (HEAD + "  items: !!python/object:os.system # !\n    source: item\n", "tables.items", "tags", "Leave the tag out"),
    "an alias of nothing": (HEAD + "  items:\n    source: item\n    columns: *gone # !\n", "tables.items.columns", "no anchor &gone", "Define it"),
    "an alias of itself": (HEAD + "  items: &items\n    source: item\n    columns: *items # !\n", "tables.items.columns", "contain itself", "Leave it out"),
    "a merge of a text": (HEAD + "  items:\n    <<: item # !\n    source: item\n", "tables.items.'<<'", "one mapping", "<<: *name"),
    "a key twice": (HEAD + "  items:\n    source: item\n    source: other # !\n", "tables.items.source", "given twice, first in line 5", "Leave one"),
    "a table twice": (ITEMS + "  items: {source: other} # !\n", "tables.items", "given twice, first in line 4", "Leave one"),
    "a column twice": (HEAD + "  items:\n    source: item\n    columns:\n      title: text\n      title: int # !\n", "tables.items.columns.title", "given twice", "Leave one"),
    "a list as a key": (HEAD + "  items:\n    source: item\n    [a, b]: c # !\n", "tables.items", "not a name", "one name"),
    "a depth of forty": (HEAD + f"  items: {'[' * 40}{']' * 40} # !\n", "", "too deeply", "eight levels"),
    # The document.
    "nothing": ("", "", "is empty", "version: 1"),
    "a comment alone": ("# a map\n", "", "is empty", "version: 1"),
    "a text": ("items # !\n", "", "a mapping is wanted", "version, name, tables"),
    "a list": ("- items # !\n", "", "a mapping is wanted", "version, name, tables"),
    "no version": ("name: shop # !\ntables: {items: {source: item}}\n", "version", "'version' is missing", "version: 1"),
    "a later version": ("version: 2 # !\nname: shop\ntables: {items: {source: item}}\n", "version", "unknown: 1 is the newest", "version: 1"),
    "a version in quotes": ("version: '1' # !\nname: shop\ntables: {items: {source: item}}\n", "version", "unknown", "version: 1"),
    "no name": ("version: 1 # !\ntables: {items: {source: item}}\n", "name", "'name' is missing", "name of the map"),
    "an empty name": ("version: 1\nname: '' # !\ntables: {items: {source: item}}\n", "name", "name is empty", "Write the name"),
    "no tables": ("version: 1 # !\nname: shop\n", "tables", "'tables' is missing", "entry for each table"),
    "tables of nothing": ("version: 1\nname: shop\ntables: # !\n", "tables", "list or a mapping", "key: value"),
    "an empty mapping of tables": ("version: 1\nname: shop\ntables: {} # !\n", "tables", "no table in it", "Add an entry for each"),
    "an empty list of tables": ("version: 1\nname: shop\ntables: [] # !\n", "tables", "no table in it", "Add an entry for each"),
    "an unknown key of the map": (ITEMS + "tabels: {} # !\n", "tabels", "unknown key 'tabels'", "Did you mean 'tables'?"),
    # Marks.
    "a mark on no column": (HEAD + "  items:\n    source: item\n    marked:\n      gone: now() # !\n", "tables.items.marked.gone", "gone is no column", "Add it to `columns`"),
    "marks of rows of another table": (ITEMS + "  more:\n    source: more\n    into: items\n    columns: {note: text}\n    marked: {note: \"'x'\"} # !\n", "tables.more.marked", "rows are those of items", "Mark them there"),
    "a mark on what others refer by": (HEAD + "  items:\n    source: item\n    columns: {code: text}\n    marked:\n      code: \"''\" # !\n  tags:\n    source: tag\n    references: {item: {parent: items, by: code}}\n", "tables.items.marked.code", "refer to items by code", "Mark another column"),
    "marks of rejections": (HEAD + "  tags: {source: tag}\n  items:\n    source: item\n    links: {item_tags: {source: tag_ids, owner: item_id, member: tag_id, parent: tags, rejected_by: rejections}}\n  rejections:\n    source: rejection\n    key: [item, tag]\n    references: {item: items, tag: tags}\n    columns: {note: text}\n    marked: {note: \"'x'\"} # !\n", "tables.rejections.marked", "suppresses a link", "Leave it out"),
    "a parameter in a mark": (HEAD + "  items:\n    source: item\n    columns: {code: text}\n    marked:\n      code: $1 # !\n", "tables.items.marked.code", "stands for nothing", "Write the value"),
    # Stubs.
    "a stub for an optional reference": (ITEMS + "  more:\n    source: more\n    references:\n      item: {parent: items, required: false, stub: true} # !\n", "tables.more.references.item.stub", "is for a required reference", "required: true"),
    "a stub that is a number": (ITEMS + "  more:\n    source: more\n    references:\n      item: {parent: items, stub: 7} # !\n", "tables.more.references.item.stub", "a mapping is wanted", ""),
    "a stub without such a column": (ITEMS + "  more:\n    source: more\n    references:\n      item: {parent: items, stub: {name: s.item}} # !\n", "tables.more.references.item.stub.name", "no column of items that a stub can say", "Name one of `columns`"),
    "a stub that says what is looked up": (ITEMS + "  more:\n    source: more\n    references:\n      item: {parent: items, by: code, stub: {code: s.item}} # !\n", "tables.more.references.item.stub.code", "no column of items that a stub can say", "looked up"),
    "a parameter in a stub": (ITEMS + "  more:\n    source: more\n    references:\n      item: {parent: items, stub: {title: $1}} # !\n", "tables.more.references.item.stub.title", "stands for nothing", "Write the value"),
    "a stub under an id that is assigned": (HEAD + "  items:\n    source: item\n    id: {rule: assigned, type: bigint}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, stub: true} # !\n", "tables.more.references.item.stub", "do not follow from its key", "Let items have ids"),
    "a stub beside rows of others": (HEAD + "  items:\n    source: item\n    id: {rule: hash, beside: true}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, stub: true} # !\n", "tables.more.references.item.stub", "do not follow from its key", "Let items have ids"),
    "a stub that needs a parent": (HEAD + "  shops: {source: shop}\n  items: {source: item, references: {shop: shops}}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, stub: true} # !\n", "tables.more.references.item.stub", "could not say its shop", "the row waits"),
    "a stub by value with a number as key": (HEAD + "  items:\n    source: item\n    types: {id: bigint}\n    columns: {code: text}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, by: code, stub: true} # !\n", "tables.more.references.item.stub", "none can be made of type bigint", "the row waits"),
    "a stub by value with several columns as key": (HEAD + "  items:\n    source: item\n    key: [shop, number]\n    id: hash\n    columns: {code: text}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, by: code, stub: true} # !\n", "tables.more.references.item.stub", "makes no key of items", "the row waits"),
    "stubs by two values": (ITEMS + "  less: {source: less, references: {item: {parent: items, by: code, stub: true}}}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, by: title, stub: true} # !\n", "tables.more.references.item.stub", "found by code elsewhere", "by one column"),
    "a stub for some rows alone": (ITEMS + "  less: {source: less, references: {item: {parent: items, by: code, stub: true}}}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, by: code} # !\n", "tables.more.references.item", "this row would wait", "Add `stub: true`"),
    "a reference by what a stub says": (ITEMS + "  less: {source: less, references: {item: {parent: items, by: code, stub: {title: s.item}}}}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, by: title} # !\n", "tables.more.references.item.by", "a title of its own", "another column"),
    "a stub of what links name": (ITEMS + "  tags: {source: tag, links: {tag_items: {source: item_ids, owner: tag_id, member: item_id, parent: items}}}\n" + "  more:\n    source: more\n    references:\n      item: {parent: items, stub: true} # !\n", "tables.more.references.item.stub", "links to items would wait", "the row waits"),
    # Fields.
    "no source": (HEAD + "  items: {columns: [title]} # !\n", "tables.items.source", "'source' is missing", "Add `source:`"),
    "a table of nothing": (HEAD + "  items: # !\n", "tables.items.source", "'source' is missing", "Add `source:`"),
    "a table that is a text": (HEAD + "  items: item # !\n", "tables.items", "a mapping is wanted", "known: name, source"),
    "a table with another name": (HEAD + "  items:\n    name: goods # !\n    source: item\n", "tables.items.name", "'name' is given twice", "Leave 'name' out"),
    "an unknown key of a table": (HEAD + "  items:\n    source: item\n    colums: [title] # !\n", "tables.items.colums", "unknown key 'colums'", "Did you mean 'columns'?"),
    "an unknown key, like none": (HEAD + "  items:\n    source: item\n    zzz: 1 # !\n", "tables.items.zzz", "unknown key 'zzz'", "Known: name, source"),
    "a key that may be a secret": (HEAD + "  items:\n    source: item\n    ? 'postgresql://a:hunter2@b' # !\n    : 1\n", "tables.items.(a text of 24 characters)", "unknown key (a text of 24 characters)", "Known:"),
    "a number for a name": (HEAD + "  items:\n    source: 7 # !\n", "tables.items.source", "a number or a truth value", "Put it in quotes"),
    "a truth value for SQL": (HEAD + "  items:\n    source: item\n    present: true # !\n", "tables.items.present", "a number or a truth value", "Put it in quotes"),
    "nothing for a name": (HEAD + "  items:\n    source: # !\n", "tables.items.source", "a text is wanted", "Write one text"),
    "a list for a name": (HEAD + "  items:\n    source: [item] # !\n", "tables.items.source", "a text is wanted", "Write one text"),
    "a name of 64 bytes": (HEAD + f"  items:\n    source: {'a' * 64} # !\n", "tables.items.source", "longer than 63 bytes", "as Postgres has it"),
    "a column that is ignored and copied": (ITEMS + "    ignored: [draft, title] # !\n", "tables.items.ignored.1", "cannot be ignored and read", "Leave title out"),
    "a parameter in a condition": (ITEMS + "    present: price > $1 # !\n", "tables.items.present", "$1 stands for nothing", "Write the value itself"),
    "a parameter in an expression": (ITEMS + "    expressions:\n      title: \"s.title || ' $5' || $2\" # !\n", "tables.items.expressions.title", "$2 stands for nothing", "Write the value itself"),
    "SQL of nothing": (HEAD + "  items:\n    source: item\n    present: ' ' # !\n", "tables.items.present", "SQL is empty", "leave the key out"),
    "a text for a list": (HEAD + "  items:\n    source: item\n    columns: title # !\n", "tables.items.columns", "list or a mapping", "- item"),
    "a number for a type": (HEAD + "  items:\n    source: item\n    columns:\n      title: text\n      price: 10 # !\n", "tables.items.columns.price", "a mapping is wanted", "known: name, type"),
    "an unknown key of a column": (HEAD + "  items:\n    source: item\n    columns:\n      - title\n      - {name: price, typ: numeric} # !\n", "tables.items.columns.1.typ", "unknown key 'typ'", "Did you mean 'type'?"),
    "a column of two columns": (HEAD + "  items:\n    source: item\n    columns:\n      name:\n        source: [first, last] # !\n", "tables.items.columns.name.source", "made of 2 columns", "Add `value:`"),
    "a column made twice": (HEAD + "  items:\n    source: item\n    columns: {name: {source: title}}\n    expressions:\n      name: upper(s.title) # !\n", "tables.items.expressions.name", "made twice", "Leave one of them out"),
    "a source column of two types": (HEAD + "  items:\n    source: item\n    columns:\n      made: timestamp\n      day:\n        type: date\n        source: {made: timestamptz} # !\n", "tables.items.columns.day.source", "made is timestamp elsewhere in items, and timestamptz here", "one type"),
    "a key of another type as a column": (HEAD + "  items:\n    source: item\n    types: {id: bigint}\n    columns:\n      number:\n        source: {id: integer} # !\n", "tables.items.columns.number.source", "id is bigint, as a column of the key", "Leave the type out"),
    "a copy of what may be missing": (HEAD + "  items:\n    source: item\n    references: {above: {parent: items, required: false}}\n    columns:\n      under:\n        source: above # !\n", "tables.items.columns.under.source", "an optional reference", "Make the reference required"),
    "a value that is not copied": (HEAD + "  items:\n    source: item\n    source_only:\n      kind:\n        value: upper(s.kind) # !\n", "tables.items.source_only.kind.value", "of which nothing is made", "into `columns`"),
    "a parameter in a value": (HEAD + "  items:\n    source: item\n    columns:\n      kind:\n        value: $1 # !\n", "tables.items.columns.kind.value", "$1 stands for nothing", "Write the value itself"),
    "a value for the key": (HEAD + "  items:\n    source: item\n    columns:\n      key: {value: \"'x'\"} # !\n", "tables.items.columns.key", "two target columns", "separate names"),
    "a column without a name": (HEAD + "  items:\n    source: item\n    columns:\n      - {type: text} # !\n", "tables.items.columns.0.name", "'name' is missing", "Add `name:`"),
    "a reference without a parent": (TAGS + "  parts:\n    source: part\n    references:\n      item: {required: true} # !\n", "tables.parts.references.item.parent", "'parent' is missing", "Add `parent:`"),
    "a requirement in words": (TAGS + "  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        required: 'no' # !\n", "tables.parts.references.item.required", "true or false", "without quotes"),
    "links without an owner": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags: {source: tags, member: tag, parent: tags} # !\n", "tables.parts.links.part_tags.owner", "'owner' is missing", "Add `owner:`"),
    "links as a text": (TAGS + "  parts:\n    source: part\n    links: {part_tags: tags} # !\n", "tables.parts.links.part_tags", "a mapping is wanted", "known: table, source"),
    "a vector without a text": (HEAD + "  items:\n    source: item\n    vector: {collection: items, payload: {}} # !\n", "tables.items.vector.text", "'text' is missing", "SQL of the text"),
    "a vector without a payload": (HEAD + "  items:\n    source: item\n    vector: {collection: items, text: t.key} # !\n", "tables.items.vector.payload", "'payload' is missing", "{} has none"),
    "a payload that is a list": (HEAD + "  items:\n    source: item\n    vector:\n      collection: items\n      text: t.key\n      payload: [title] # !\n", "tables.items.vector.payload", "a mapping is wanted", "key: value"),
    "counts without columns": (HEAD + "  items:\n    source: item\n    stats: {table: n, owner: o} # !\n", "tables.items.stats.columns", "'columns' is missing", "Add `columns:`"),
    # What contradicts itself.
    "counts without an owner": (HEAD + "  items:\n    source: item\n    references: {above: {parent: items, required: false}}\n    stats: {table: n, columns: {below: {counted: items, by: above}}} # !\n", "tables.items.stats.owner", "'owner' is missing", "Add `owner:`"),
    "an owner of counts in the row": (HEAD + "  items:\n    source: item\n    references: {above: {parent: items, required: false}}\n    stats:\n      owner: o # !\n      columns: {below: {counted: items, by: above}}\n", "tables.items.stats.owner", "have no owner", "add `table:`"),
    "the row's table for counts": (HEAD + "  items:\n    source: item\n    references: {above: {parent: items, required: false}}\n    stats:\n      table: items # !\n      owner: id\n      columns: {below: {counted: items, by: above}}\n", "tables.items.stats.table", "name no table", "Leave `table` and `owner` out"),
    "a count in a column that is written": (HEAD + "  items:\n    source: item\n    columns: [title]\n    references: {above: {parent: items, required: false}}\n    stats:\n      columns:\n        title: {counted: items, by: above} # !\n", "tables.items.stats.columns.title", "written from the source row", "a column of its own"),
    "a count in a payload": (HEAD + "  items:\n    source: item\n    references: {above: {parent: items, required: false}}\n    vector:\n      collection: c\n      text: t.key\n      payload:\n        below: t.below + 1 # !\n    stats: {columns: {below: {counted: items, by: above}}}\n", "tables.items.vector.payload.below", "writes no point", "Leave it out"),
    "a value without a source row, of rows of its own": (ITEMS + "    otherwise: {code: \"'x'\"} # !\n", "tables.items.otherwise", "leave with their source row", "add `into:`"),
    "into no table": (ITEMS + "  extra:\n    source: e\n    into: itmes # !\n    columns: [note]\n", "tables.extra.into", "no table map itmes", "Name a table"),
    "into what writes into another": (ITEMS + "  extra:\n    source: e\n    into: items\n    columns: [note]\n  more:\n    source: m\n    into: extra # !\n    columns: [other]\n", "tables.more.into", "writes into items itself", "with an id"),
    "into nothing": (ITEMS + "  extra:\n    source: e\n    into: items # !\n", "tables.extra.into", "nothing is written", "Add `columns:`"),
    "a column that two sources write": (ITEMS + "  extra:\n    source: e\n    into: items\n    columns:\n      note: text\n      title: text # !\n", "tables.extra.columns.title", "written by items already", "one source"),
    "a column that two others write": (ITEMS + "  extra: {source: e, into: items, columns: [note]}\n  more:\n    source: m\n    into: items\n    columns: {no: text, note: text} # !\n", "tables.more.columns.note", "written by extra already", "one source"),
    "links of what writes into another": (TAGS + "  extra:\n    source: e\n    into: items\n    columns: [note]\n    links: # !\n      l: {source: a, owner: o, member: m, parent: tags}\n", "tables.extra.links", "columns alone", "Say it in items"),
    "a key that names no row": (ITEMS + "  extra:\n    source: e\n    key: [a, b] # !\n    into: items\n    columns: [note]\n", "tables.extra.key", "by one column", "the column with its key"),
    "a value of no column": (ITEMS + "  extra:\n    source: e\n    into: items\n    columns: [note]\n    otherwise:\n      nota: \"'x'\" # !\n", "tables.extra.otherwise.nota", "no column of this table map", "Add it"),
    "a value that is another each time": (ITEMS + "  extra:\n    source: e\n    into: items\n    columns: {seen: timestamptz}\n    otherwise:\n      seen: now() # !\n", "tables.extra.otherwise.seen", "another value each time", "Write a constant"),
    "a parameter without a source row": (ITEMS + "  extra:\n    source: e\n    into: items\n    columns: [note]\n    otherwise:\n      note: $1 # !\n", "tables.extra.otherwise.note", "$1 stands for nothing", "Write the value itself"),
    "references of what writes into another": (ITEMS + "  extra:\n    source: e\n    key: item\n    into: items\n    columns: [note]\n    references: # !\n      item: items\n", "tables.extra.references", "the key names the row", "Leave them out"),
    "no parent of that name": (ITEMS + "  parts:\n    source: part\n    references:\n      item: itmes # !\n", "tables.parts.references.item", "refers to itmes", "Did you mean 'items'?"),
    "no parent like that": (ITEMS + "  parts:\n    source: part\n    references:\n      item: {parent: zzz} # !\n", "tables.parts.references.item.parent", "refers to zzz", "Declare zzz"),
    "parents in a circle": (HEAD + "  a:\n    source: a\n    references:\n      b: b # !\n  b:\n    source: b\n    references: {a: a}\n", "tables.a.references.b", "refers back to a", "Leave one of these references out"),
    "a parent without an id": (TAGS + "  pairs: {source: pair, key: [i, t], references: {i: items, t: tags}}\n  more:\n    source: more\n    references:\n      pair: pairs # !\n", "tables.more.references.pair", "no id of its own", "the parents of pairs"),
    "a parent by no column": (ITEMS + "  parts:\n    source: part\n    references:\n      code: {parent: items, by: cod} # !\n", "tables.parts.references.code.by", "no text column cod", "Did you mean 'code'?"),
    "a parent by value, not required": (ITEMS + "  parts:\n    source: part\n    references:\n      c: {parent: items, by: code, required: false} # !\n", "tables.parts.references.c.by", "only if required", "Make it required"),
    "a reference to itself, required": (HEAD + "  items:\n    source: item\n    references:\n      above: items # !\n", "tables.items.references.above", "cannot be required", "required: false"),
    "a key of no column": (HEAD + "  items:\n    source: item\n    key: [] # !\n", "tables.items.key", "a key has one column", "once"),
    "a key of one column twice": (HEAD + "  items:\n    source: item\n    key: [a, a] # !\n", "tables.items.key", "several different ones", "once"),
    "a reference to a key of columns": (HEAD + "  items: {source: item, key: [a, b], id: hash}\n  parts:\n    source: part\n    references:\n      item: items # !\n", "tables.parts.references.item", "have 2 columns, not one", "a key of one column"),
    "a key of another type": (HEAD + "  items:\n    source: item\n    types:\n      id: jsonb # !\n", "tables.items.types.id", "cannot be a key", "smallint"),
    "the type of no key": (HEAD + "  items:\n    source: item\n    columns: [title]\n    types:\n      title: text # !\n", "tables.items.types.title", "no key, no reference", "in `columns`"),
    "links that are no array": (TAGS + "  parts:\n    source: part\n    types:\n      a: text # !\n    links: {l: {source: a, owner: o, member: m, parent: tags}}\n", "tables.parts.types.a", "no array of keys", "uuid[]"),
    "a reference of another type": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    types: {item: bigint}\n    references:\n      item: items # !\n", "tables.parts.references.item", "item has bigint, and keys of items are uuid", "in `types`"),
    "a text that names a date": (HEAD + "  items: {source: item, types: {id: date}}\n  parts:\n    source: part\n    references:\n      item: items # !\n", "tables.parts.references.item", "item has text, and keys of items are date", "Make item a date"),
    "an array of another type": (HEAD + "  items: {source: item, types: {id: bigint}}\n  parts:\n    source: part\n    types: {a: 'uuid[]'}\n    links:\n      l: {source: a, owner: o, member: m, parent: items} # !\n", "tables.parts.links.l.parent", "a has uuid, and keys of items are bigint", "in `types`"),
    "a part of a key of another type": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    key: [item, n]\n    references:\n      item: items # !\n", "tables.parts.references.item", "item has text, and keys of items are uuid", "in `types`"),
    "a key of columns named by one": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}, id: hash}\n  parts:\n    source: part\n    columns: {x: bigint, y: text}\n    references:\n      item:\n        parent: items # !\n        target: t\n", "tables.parts.references.item.parent", "keys of items have 2 columns", "`columns`"),
    "too few columns of a parent": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}, id: hash}\n  parts:\n    source: part\n    columns: {x: bigint, y: text}\n    references:\n      item:\n        parent: items\n        columns: x # !\n        target: t\n", "tables.parts.references.item.columns", "keys of items are (a, b), and 1 columns are named", "in their order"),
    "columns of a parent without a target": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}, id: hash}\n  parts:\n    source: part\n    columns: {x: bigint, y: text}\n    references:\n      item:\n        parent: items\n        columns: [x, y] # !\n", "tables.parts.references.item.columns", "items has an id", "Add `target:`"),
    "a target of a parent without an id": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}}\n  parts:\n    source: part\n    columns: {x: bigint, y: text}\n    references:\n      item:\n        parent: items\n        columns: [x, y]\n        target: t # !\n", "tables.parts.references.item.target", "items has no id", "Leave it out"),
    "columns of another type than the parent": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}, id: hash}\n  parts:\n    source: part\n    columns: {y: text, z: text}\n    references:\n      item:\n        parent: items\n        columns: [z, y] # !\n        target: t\n", "tables.parts.references.item.columns.0", "z has text, and a of items is bigint", "in `types`"),
    "columns that the target has not": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}}\n  parts:\n    source: part\n    types: {x: bigint}\n    columns: [y]\n    references:\n      item:\n        parent: items\n        columns: [x, y] # !\n", "tables.parts.references.item.columns.0", "no column of the target has x", "Copy it"),
    "optional columns of a parent without an id": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}}\n  parts:\n    source: part\n    columns: {x: bigint, y: text}\n    references:\n      item:\n        parent: items\n        columns: [x, y]\n        required: false # !\n", "tables.parts.references.item.required", "by themselves", "give items an `id`"),
    "columns of a value": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}, id: hash}\n  parts:\n    source: part\n    columns: {x: bigint, y: text}\n    references:\n      item:\n        parent: items\n        columns: [x, y]\n        target: t\n        by: hash # !\n", "tables.parts.references.item.by", "have no `by`", "Leave it out"),
    "columns that can be read": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}, id: hash}\n  parts:\n    source: part\n    columns: {x: bigint, y: text}\n    references:\n      item:\n        parent: items\n        columns: [x, y]\n        target: t\n        unreadable: none # !\n", "tables.parts.references.item.unreadable", "have no `unreadable`", "Leave it out"),
    "a reference that is a column, too": (HEAD + "  items: {source: item, key: [a, b], types: {a: bigint}, id: hash}\n  parts:\n    source: part\n    columns: {x: bigint, y: text, up: {value: upper(s.item), source: item}}\n    references:\n      item:\n        parent: items\n        columns: [x, y] # !\n        target: t\n", "tables.parts.references.item.columns", "item names the reference here", "Name it otherwise"),
    "links to a key of columns": (HEAD + "  items: {source: item, key: [a, b], id: hash}\n  parts:\n    source: part\n    links:\n      l: {source: a, owner: o, member: m, parent: items} # !\n", "tables.parts.links.l.parent", "keys of items have 2 columns", "key of one column"),
    "a tenant of another type than a column made of it": (ITEMS.replace("text, code: text", "text, owner: {source: t}") + "    tenant: {column: t, type: uuid} # !\n", "tables.items.tenant", "t is uuid as the tenant and text as a column", "one type"),
    "no row of a required reference": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        unreadable: none # !\n", "tables.parts.references.item.unreadable", "is required, so it names a row", "required: false"),
    "an unreadable text of text keys": (HEAD + "  items: {source: item}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        required: false\n        unreadable: none # !\n", "tables.parts.references.item.unreadable", "every value of item can be a key", "Leave it out"),
    "a uuid5 for a number": (HEAD + "  items: {source: item, types: {id: bigint}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        unreadable: {rule: uuid5, namespace: 6ba7b811-9dad-11d1-80b4-00c04fd430c8} # !\n", "tables.parts.references.item.unreadable", "a uuid5 is a uuid", "`none` or `key`"),
    "an unreadable text without a namespace": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        unreadable: uuid5 # !\n", "tables.parts.references.item.unreadable", "needs `namespace`", "Add `namespace:`"),
    "an unreadable text without its key": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        unreadable: key # !\n", "tables.parts.references.item.unreadable", "needs `key`", "Add `key:`"),
    "an unreadable text of a namespace that is no uuid": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        unreadable:\n          rule: uuid5\n          namespace: here # !\n", "tables.parts.references.item.unreadable.namespace", "is a uuid", "Write the uuid"),
    "an unreadable text of a key that is none": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        unreadable:\n          rule: key\n          key: zero # !\n", "tables.parts.references.item.unreadable.key", "it is no uuid", "a key of the parent"),
    "no row with a key": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        required: false\n        unreadable:\n          rule: none\n          key: 00000000-0000-0000-0000-000000000000 # !\n", "tables.parts.references.item.unreadable.key", "rule none has no key", "Leave it out"),
    "an unreadable rule that there is not": (HEAD + "  items: {source: item, types: {id: uuid}}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        unreadable: nothing # !\n", "tables.parts.references.item.unreadable", "must be 'none'", "Write one of them"),
    "an unreadable value": (HEAD + "  items: {source: item, types: {id: uuid}, columns: [hash]}\n  parts:\n    source: part\n    references:\n      item:\n        parent: items\n        by: hash\n        unreadable: key # !\n", "tables.parts.references.item.unreadable", "by value", "Leave it out"),
    "a uuid5 of no namespace": (HEAD + "  items:\n    source: item\n    id: uuid5 # !\n", "tables.items.id", "needs `namespace`", "Add `namespace:`"),
    "a namespace that is no uuid": (HEAD + "  items:\n    source: item\n    id:\n      rule: uuid5\n      namespace: here # !\n", "tables.items.id.namespace", "is a uuid", "Write the uuid"),
    "a uuid5 of a key of columns": (HEAD + "  items:\n    source: item\n    key: [a, b]\n    id:\n      rule: uuid5 # !\n      namespace: 6ba7b811-9dad-11d1-80b4-00c04fd430c8\n", "tables.items.id.rule", "a key of one column", "syncline.uuid5"),
    "an id of no key": (HEAD + "  items:\n    source: item\n    id:\n      rule: expression\n      type: uuid\n      expression: gen_random_uuid() # !\n", "tables.items.id.expression", "made from the key", "at least one"),
    "an id of a column that the key has not": (HEAD + "  items:\n    source: item\n    id:\n      rule: expression\n      type: text\n      expression: $1 || $2 # !\n", "tables.items.id.expression", "$1 to $1", "no other"),
    "an id by expression without a type": (HEAD + "  items:\n    source: item\n    id: {rule: expression, expression: $1} # !\n", "tables.items.id", "needs `type`", "Add `type:`"),
    "a hash with a namespace": (HEAD + "  items:\n    source: item\n    id:\n      rule: hash\n      namespace: 6ba7b811-9dad-11d1-80b4-00c04fd430c8 # !\n", "tables.items.id.namespace", "rule hash has no namespace", "Leave it out"),
    "an id of another type than its key": (HEAD + "  items:\n    source: item\n    id:\n      rule: same\n      type: uuid # !\n", "tables.items.id.type", "the id is the key, which is text", "rule `expression`"),
    "a key column of a key of columns": (HEAD + "  items:\n    source: item\n    key: [a, b]\n    id:\n      rule: hash\n      key: k # !\n", "tables.items.id.key", "has a column each", "Leave it out"),
    "an id of a column that is not named": (HEAD + "  items:\n    source: item\n    id: {rule: column, type: uuid} # !\n", "tables.items.id", "needs `source`", "Add `source:`"),
    "an id of a column of the key": (HEAD + "  items:\n    source: item\n    id:\n      rule: column\n      type: text\n      source: id # !\n", "tables.items.id.source", "id is of the key", "rule `same`"),
    "an id of a column that refers": (TAGS + "  parts:\n    source: part\n    references: {tag: tags}\n    id:\n      rule: column\n      type: text\n      source: tag # !\n", "tables.parts.id.source", "names other rows", "the row's own id"),
    "an id of a column of another type": (HEAD + "  items:\n    source: item\n    columns: {u: text}\n    id:\n      rule: column\n      source: u\n      type: uuid # !\n", "tables.items.id.type", "the column u is text, and the id uuid", "one type"),
    "an id of json": (HEAD + "  items:\n    source: item\n    id:\n      rule: column\n      source: u\n      type: jsonb # !\n", "tables.items.id.type", "cannot be an id", "uuid"),
    "an id of no rule's column": (HEAD + "  items:\n    source: item\n    id:\n      rule: hash\n      source: u # !\n", "tables.items.id.source", "rule hash has no source", "Leave it out"),
    "an assigned id without a type": (HEAD + "  items:\n    source: item\n    id: assigned # !\n", "tables.items.id", "needs `type`", "Add `type:`"),
    "a natural key of no column": (HEAD + "  items:\n    source: item\n    columns: [uri]\n    id:\n      rule: assigned\n      type: bigint\n      natural: url # !\n", "tables.items.id.natural", "url is no column that this map writes", "Name some of key, uri"),
    "a natural key of another rule": (HEAD + "  items:\n    source: item\n    columns: [uri]\n    id:\n      rule: hash\n      natural: uri # !\n", "tables.items.id.natural", "while keys stand in the target", "Add `beside: true`"),
    "a natural key of the same id": (HEAD + "  items:\n    source: item\n    columns: [uri]\n    id:\n      rule: same\n      natural: uri # !\n", "tables.items.id.natural", "rule same finds no existing row", "Leave it out"),
    "the same id with bookkeeping beside": (HEAD + "  items:\n    source: item\n    id:\n      rule: same\n      beside: true # !\n", "tables.items.id.beside", "the id is the key", "Leave it out"),
    "a key column with bookkeeping beside": (HEAD + "  items:\n    source: item\n    id:\n      rule: hash\n      key: k # !\n      beside: true\n", "tables.items.id.key", "leaves no key in the target", "Leave `key` or `beside` out"),
    "a rule of no kind": (HEAD + "  items:\n    source: item\n    id: random # !\n", "tables.items.id", "must be 'hash'", "one of them"),
    "links of a row without an id": (TAGS + "  pairs:\n    source: pair\n    key: [i, t]\n    references: {i: items, t: tags}\n    links: # !\n      l: {source: a, owner: o, member: m, parent: tags}\n", "tables.pairs.links", "need a key that is no reference", "leave this out"),
    "a column named like the engine's": (HEAD + "  items:\n    source: item\n    columns:\n      key: text # !\n", "tables.items.columns.key", "two target columns", "separate names"),
    "a column and a reference": (TAGS + "  parts:\n    source: part\n    columns: [tag]\n    references:\n      tag: tags # !\n", "tables.parts.references.tag", "a column and a reference", "Leave tag out"),
    "a column and links": (TAGS + "  parts:\n    source: part\n    columns: [tags]\n    links:\n      part_tags:\n        source: tags # !\n        owner: o\n        member: m\n        parent: tags\n", "tables.parts.links.part_tags.source", "links and something else", "for the links alone"),
    "a reserved column": (HEAD + "  items:\n    source: item\n    columns:\n      sync_xid: xid8 # !\n", "tables.items.columns.sync_xid", "begins with sync_", "another name"),
    "a reserved table": (HEAD + "  sync_outbox: {source: item} # !\n", "tables.sync_outbox", "begins with sync_", "another table"),
    "an expression for the id": (HEAD + "  items:\n    source: item\n    expressions:\n      id: gen_random_uuid() # !\n", "tables.items.expressions.id", "comes from the key", "a different column"),
    "an expression for a reference": (ITEMS + "  parts:\n    source: part\n    references: {item: items}\n    expressions:\n      item: 'NULL' # !\n", "tables.parts.expressions.item", "can only choose", "s.ref_"),
    "an optional reference by expression": (HEAD + "  items:\n    source: item\n    references:\n      above: {parent: items, required: false} # !\n    expressions: {above: s.ref_above}\n", "tables.items.references.above", "neither a key nor an expression", "a column of its own"),
    "one table for rows and links": (TAGS + "  parts:\n    source: part\n    links:\n      tags: {source: t, owner: o, member: m, parent: tags} # !\n", "tables.parts.links.tags", "cannot hold the rows of tags and the links", "separate tables"),
    "one collection for two": (HEAD + "  a: {source: a, vector: {collection: c, text: t.key, payload: {}}}\n  b: {source: b, vector: {collection: c, text: t.key, payload: {}}} # !\n", "tables.b.vector.collection", "another table, a, has collection c", "for each table"),
    "a collection that is named like a second generation": (HEAD + "  a: {source: a, vector: {collection: c@second, text: t.key, payload: {}}} # !\n", "tables.a.vector.collection", "has an '@'", "without '@'"),
    "a collection that is named like an alias": (HEAD + "  a: {source: a, vector: {collection: c, text: t.key, payload: {}}}\n  b: {source: b, vector: {collection: c.live, text: t.key, payload: {}}} # !\n", "tables.b.vector.collection", "an alias, or of another generation, of collection c", "does not end"),
    "an index of no field": (HEAD + "  a: {source: a, vector: {collection: c, text: t.key, payload: {kind: t.k}, indexed: kin}} # !\n", "tables.a.vector.indexed", "no field of the payload", "Did you mean 'kind'?"),
    "rejections of something else": (TAGS + "  parts:\n    source: part\n    links:\n      l: {source: a, owner: o, member: m, parent: tags, rejected_by: items} # !\n", "tables.parts.links.l.rejected_by", "a key of two required references", "Change the key of items"),
    "a link's end among its columns": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        columns: {o: now()} # !\n", "tables.parts.links.part_tags.columns.o", "o is the owner of a link", "Leave it out"),
    "a position that is an end": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        position: m # !\n", "tables.parts.links.part_tags.position", "m is the member of a link", "column of its own"),
    "a position among the columns": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        position: place\n        columns: {place: 0::int} # !\n", "tables.parts.links.part_tags.columns.place", "place is the position of a link", "Leave it out"),
    "a link's column of the engine": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        columns: {sync_at: now()} # !\n", "tables.parts.links.part_tags.columns.sync_at", "begins with sync_", "another name"),
    "a position of the engine": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        position: sync_place # !\n", "tables.parts.links.part_tags.position", "begins with sync_", "another name"),
    "a parameter in a link's column": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        columns: {w: $1 * 2} # !\n", "tables.parts.links.part_tags.columns.w", "$1 stands for nothing", "Write the value itself"),
    "a number for a link's column": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        columns: {w: 1} # !\n", "tables.parts.links.part_tags.columns.w", "a number or a truth value", "Put it in quotes"),
    "links of somebody": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: m\n        parent: tags\n        owned: others # !\n", "tables.parts.links.part_tags.owned", "'all' or 'ours'", "Write one of them"),
    "one column for both ends": (TAGS + "  parts:\n    source: part\n    links:\n      part_tags:\n        source: t\n        owner: o\n        member: o # !\n        parent: tags\n", "tables.parts.links.part_tags.member", "cannot be the owner and the member", "the two columns"),
    "a count of what does not refer": (HEAD + "  items:\n    source: item\n    stats:\n      table: n\n      owner: o\n      columns:\n        parts: {counted: parts, by: item} # !\n", "tables.items.stats.columns.parts.by", "counts parts by item", "that refers to items"),
    "a tenant of another type": (HEAD.replace("tables:", "tenant: {column: t, type: jsonb}\ntables:") + "  items: # !\n    source: item\n", "tables.items.tenant", "a tenant cannot be 'jsonb'", "smallint"),
    "a tenant with an unknown key": (HEAD.replace("tables:", "tenant:\n  column: t\n  typ: uuid # !\ntables:") + "  items: {source: item}\n", "tenant.typ", "unknown key 'typ'", "Did you mean 'type'?"),
    "a tenant that is a list": (HEAD + "  items:\n    source: item\n    tenant: [a, b] # !\n", "tables.items.tenant", "a mapping is wanted", "known: column, type"),
    "a value for a tenant": (HEAD + "  items:\n    source: item\n    tenant:\n      column: t\n      value: x # !\n", "tables.items.tenant.value", "unknown key 'value'", "Known: column, type"),
    "tenants of two types": (HEAD + "  items: {source: item, tenant: {column: t, type: uuid}}\n  parts:\n    source: part\n    tenant: {column: t, type: bigint} # !\n", "tables.parts.tenant", "bigint here and uuid in other tables", "one type"),
    "a tenant and a column of another type": (HEAD + "  items:\n    source: item\n    tenant: t # !\n    columns: {t: uuid}\n", "tables.items.tenant", "text as the tenant and uuid as a column", "one type"),
    "two tenants of one source": (HEAD + "  items: {source: item, tenant: t}\n  parts:\n    source: item\n    tenant: none # !\n", "tables.parts.tenant", "the source of items too", "the same `tenant`"),
    "a reserved tenant": (HEAD + "  items:\n    source: item\n    tenant: sync_xid # !\n", "tables.items.tenant", "begins with sync_", "another column"),
    "a reference of everybody's to somebody's": (HEAD.replace("tables:", "tenant: t\ntables:") + "  items: {source: item}\n  parts:\n    source: part\n    tenant: none\n    references:\n      item: items # !\n", "tables.parts.references.item", "has no tenant, and refers to items", "Give parts the tenant"),
    "a count by another column": (HEAD + "  items:\n    source: item\n    references: {above: {parent: items, required: false}}\n    stats:\n      table: n\n      owner: o\n      columns:\n        below: {counted: items, by: abov} # !\n", "tables.items.stats.columns.below.by", "counts items by abov", "Count by above"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_map_is_refused_with_the_line_and_the_fix(case: str) -> None:
    text, path, problem, fix = BAD[case]
    with pytest.raises(MapInvalid) as refused:
        read_map(text, source="shop.yaml")
    [found] = refused.value.problems
    if "# !" in text:
        [line] = [number for number, each in enumerate(text.split("\n"), 1) if "# !" in each]
        assert found.line == line, str(refused.value)
    assert (found.path, problem in found.problem, fix in found.fix) == (path, True, True), str(refused.value)
    assert found.fix
    assert "hunter2" not in str(refused.value)
    assert str(refused.value).startswith("shop.yaml is no valid map:\n  line ")


def test_there_are_sixty() -> None:
    assert len(BAD) >= 60


def test_all_problems_are_told_at_once_in_the_order_of_the_text() -> None:
    text = """
version: 3
name: shop
tables:
  items:
    source: item
    source: other
    colums: [title]
  parts:
    columns: {price: 10}
    references: {item: {parent: items, required: maybe}}
"""
    with pytest.raises(MapInvalid) as refused:
        read_map(text, source="shop.yaml")
    assert [(found.line, found.path) for found in refused.value.problems] == [
        (2, "version"),
        (7, "tables.items.source"),
        (8, "tables.items.colums"),
        (9, "tables.parts.source"),
        (10, "tables.parts.columns.price"),
        (11, "tables.parts.references.item.required"),
    ]


def test_a_message_of_many_problems_ends() -> None:
    text = ITEMS + "".join(f"  t{number}: {{}}\n" for number in range(100))
    with pytest.raises(MapInvalid) as refused:
        read_map(text, source="shop.yaml")
    assert len(refused.value.problems) == 100
    assert str(refused.value).count("'source' is missing") == 30
    assert str(refused.value).endswith("\n  and 70 more")


def test_contradictions_are_told_at_once_too() -> None:
    text = ITEMS + "  a: {source: a, references: {x: nobody}}\n  b: {source: b, key: [], columns: [sync_x]}\n"
    with pytest.raises(MapInvalid) as refused:
        read_map(text, source="shop.yaml")
    assert [(found.line, found.path) for found in refused.value.problems] == [
        (7, "tables.a.references.x"),
        (8, "tables.b.key"),
        (8, "tables.b.columns.0"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "a: " + "x" * 1_000_001,
        ITEMS + "# \N{SNOWMAN}\n" * 200_000,
        "[" * 500_000,
        "{" * 500_000,
        "a: &a [x]\n" + "\n".join(f"b{n}: &b{n} [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]" for n in range(9)),
        "a: \ud800",
        "\x00",
        "- " * 400_000,
        "&a " * 100_000,
        "? " * 400_000,
    ],
    ids=["too long", "too long in bytes", "brackets", "braces", "aliases", "half a character", "NUL", "dashes", "anchors", "questions"],
)  # fmt: skip
def test_hostile_text_is_refused_soon(text: str) -> None:
    with pytest.raises(MapInvalid) as refused:
        read_map(text, source="x")
    assert len(str(refused.value)) < 400


def test_a_dollar_in_a_text_is_no_parameter() -> None:
    present = "title <> '$1' AND code <> $a$it's $2$a$"
    assert read_map(f'{ITEMS}    present: "{present}"\n', source="shop.yaml")["items"].present == present


def test_a_column_named_like_the_tenant_may_be_made_of_another() -> None:
    document = (
        ITEMS.replace("text, code: text", "text, t: {source: owner}")
        + "    tenant: {column: t, type: uuid}\n"
    )
    assert read_map(document, source="shop.yaml")["items"].tenant_column == "t"
