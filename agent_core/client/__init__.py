"""The client library: many sessions on one stream, safe repetition, honest outcomes.

async with Client("127.0.0.1:7101") as client:
    session = await client.create_session(title="Fix the flaky test")
    appended = await client.append(session.session_id, "message", {"role": "user", "content": "Hello"})
    async for entry in client.subscribe(session.session_id):
        print(entry.seq, entry.document())
"""

from agent_core.client.client import Client
from agent_core.client.model import Appended, CreatedSession, Entry, Session
from agent_core.client.reader import QueryResult, Reader
from agent_core.client.workspaces import Workspaces

__all__ = ["Appended", "Client", "CreatedSession", "Entry", "QueryResult", "Reader", "Session", "Workspaces"]
