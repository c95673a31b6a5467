-- Whether anything can be done for a vector store now. Each probe finds its answer at once in an index, however
-- many entries wait: those of a collection that is delayed are not even looked at.
EXISTS (
    SELECT FROM unnest(ARRAY[@{collections}]) AS c (name)
    WHERE NOT EXISTS (SELECT FROM sync_vector_delay d WHERE d.collection = c.name AND d.next_retry_at > now())
      AND (
          EXISTS (SELECT FROM sync_outbox o WHERE o.collection = c.name AND o.error IS NULL)
          OR EXISTS (
              SELECT FROM sync_outbox o
              WHERE o.collection = c.name AND o.error IS NOT NULL AND o.next_retry_at <= now()
          )
          OR EXISTS (
              SELECT FROM sync_vector_embedding e WHERE e.collection = c.name AND e.embedding <> '@{embedding}'
          )
      )
)
