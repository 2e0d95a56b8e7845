// The receiver's side of the cache webhook, for Next.js (App Router): app/api/internal/cache/invalidate/route.ts
//
// The worker calls at least once: the same tags may come twice, which for a cache does no harm. `webhook-id` is the same
// for every try of one call, for receivers that must not do a thing twice.

import { createHash, timingSafeEqual } from "node:crypto";
import { revalidateTag } from "next/cache";

export const runtime = "nodejs";
export const dynamic = "force-dynamic";

function digest(text: string): Buffer {
  return createHash("sha256").update(text).digest();
}

// Digests are of one length, so the comparison takes the same time whatever was sent.
function authorized(request: Request): boolean {
  const key = process.env.INTERNAL_API_KEY;
  if (!key) return false;
  return timingSafeEqual(digest(request.headers.get("authorization") ?? ""), digest(`Bearer ${key}`));
}

function wellFormed(body: unknown): body is { tags: string[]; source: string; requestId?: string | null } {
  if (typeof body !== "object" || body === null) return false;
  const { tags, source, requestId } = body as Record<string, unknown>;
  return (
    Array.isArray(tags) &&
    tags.length > 0 &&
    tags.every((tag) => typeof tag === "string" && tag.length > 0 && tag.length <= 200) &&
    typeof source === "string" &&
    (requestId === undefined || requestId === null || typeof requestId === "string")
  );
}

export async function POST(request: Request): Promise<Response> {
  if (!authorized(request)) return Response.json({ success: false, error: "unauthorized" }, { status: 401 });

  const body: unknown = await request.json().catch(() => null);
  if (!wellFormed(body)) return Response.json({ success: false, error: "malformed body" }, { status: 400 });

  const invalidated: string[] = [];
  const failed: string[] = [];
  for (const tag of new Set(body.tags)) {
    try {
      revalidateTag(tag, { expire: 0 }); // Next.js before 16 takes the tag alone
      invalidated.push(tag);
    } catch (error) {
      console.error("cache tag not invalidated", { tag, requestId: body.requestId, error });
      failed.push(tag);
    }
  }
  // 207: only what is listed in failed_tags comes again.
  return Response.json(
    { success: failed.length === 0, invalidated_tags: invalidated, failed_tags: failed },
    { status: failed.length === 0 ? 200 : 207 },
  );
}
