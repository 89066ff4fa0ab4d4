"""The Explorer's service: subscribes to connectors' telemetry and serves the operator's page.

It shares with the connector only `connector.core.events`, `limits`, `errors`
and `ids`, and runs as its own process.
"""
