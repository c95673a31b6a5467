#!/bin/sh
# Temporal's two databases and their schemas: made in a new cluster, brought up to date in an old one.
set -eu
versions=/etc/temporal/schema/postgresql/v12
for database in temporal temporal_visibility; do
    tool="temporal-sql-tool --plugin postgres12 --ep $POSTGRES_SEEDS -p $DB_PORT -u $POSTGRES_USER --db $database"
    # In a new cluster the first try fails: there is no such database.
    if ! $tool update-schema -d "$versions/${database#temporal_}/versioned"; then
        $tool create
        $tool setup-schema -v 0.0
        $tool update-schema -d "$versions/${database#temporal_}/versioned"
    fi
done
