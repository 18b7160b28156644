"""Data: collections and published versions."""

from __future__ import annotations

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from codealign.api.dataset.v1 import dataset_pb2 as ds
from codealign.api.dataset.v1 import records_pb2 as pb
from codealign.cli.family import is_record_id
from codealign.cli.terminal import size
from codealign.common.records import is_internal
from codealign.console.reading import Reader
from codealign.console.rendering import gather, page
from codealign.console.texts import excerpt, records_url

MOST_COLLECTIONS = 500
ROWS = 20


async def data(request: Request) -> Response:
    """Show the published versions and the collections."""
    gathered = gather(request)
    versions, collections = await asyncio.gather(
        gathered.part(lambda reader: reader.call(reader.clients.dataset.ListVersions, ds.ListVersionsRequest())),
        gathered.part(lambda reader: reader.call(reader.clients.dataset.ListCollections, ds.ListCollectionsRequest())),
    )
    listed = [one for one in (collections.collections if collections else ()) if not is_internal(one.name)]
    seeds = [one for one in listed if not is_record_id(one.name)]
    runs = [one for one in listed if is_record_id(one.name)]
    return page(
        request,
        "data",
        gathered,
        section="data",
        title="Data",
        versions=list(versions.versions if versions else ()),
        seeds=seeds[:MOST_COLLECTIONS],
        runs=runs[:MOST_COLLECTIONS],
        url=lambda one: records_url(one.name, pb.KIND_EXAMPLE if is_record_id(one.name) else pb.KIND_SEED),
    )


async def version(request: Request) -> Response:
    """Show a published version: its files and its first rows."""
    gathered, name = gather(request), request.path_params["version"]
    found = await gathered.part(
        lambda reader: reader.call(reader.clients.dataset.GetVersion, ds.GetVersionRequest(name=name)), named=True
    )
    rows, there = None, 0
    if found is not None:
        collection = found.version.collection

        async def browse(reader: Reader) -> ds.BrowseResponse:
            request = ds.BrowseRequest(collection=collection, kind=pb.KIND_EXAMPLE, page_size=ROWS)
            return await reader.call(reader.clients.dataset.Browse, request)

        rows, counted = await asyncio.gather(
            gathered.part(browse),
            gathered.part(
                lambda reader: reader.call(reader.clients.dataset.Count, ds.CountRequest(collection=collection))
            ),
        )
        there = sum(one.count for one in counted.counts if one.kind == pb.KIND_EXAMPLE) if counted else 0
    return page(
        request,
        "version",
        gathered,
        section="data",
        title=name,
        status=200 if found else 503,
        version=found.version if found else ds.Version(),
        files=[(file.path, size(file.size_bytes), file.sha256) for file in found.version.files] if found else (),
        rows=[(record, excerpt(record.example.instruction)) for record in (rows.records if rows else ())],
        more=there if found and there > found.version.rows else 0,
        run=found.version.collection if found and is_record_id(found.version.collection) else "",
    )
