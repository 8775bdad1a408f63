//! Images that are kept: lists, what is known of one, renditions, deletion.

use super::{
    Record, ServiceError,
    inner::{Inner, blocking},
    live::Found,
};
use crate::{
    domain::{ObjectId, OwnerId, ParamError, Pixels, SecretBytes, Size},
    imaging::{self, OutputFormat},
    store::{Change, Class, Cursor, Query, State, Store, Time},
};
use std::sync::Arc;

/// Images on a page where nobody says how many.
const PAGE: usize = 50;
/// The most images on a page.
const MAX_PAGE: usize = 200;
/// Records that are opened for one page of a filtered list; behind them the page ends, with a
/// cursor, so that no request holds the disk for long.
const MAX_OPENED: usize = 2000;
/// The most images of one deletion.
const MAX_DELETED: usize = 1000;

/// Which images to list, newest first.
#[derive(Clone, Debug, Default)]
pub struct ImageQuery {
    /// Images on the page: 1 to 200, 50 where it is not given.
    pub limit: Option<usize>,
    /// The `next` of the page before.
    pub cursor: Option<String>,
    /// Only of this style.
    pub style: Option<String>,
    /// Only whose prompt or style holds this text, in whatever case.
    pub text: Option<String>,
    /// Only made at this moment or later.
    pub from: Option<Time>,
    /// Only made before this moment.
    pub until: Option<Time>,
}

/// An image that is kept.
#[derive(Clone, Debug)]
pub struct ImageView {
    /// Its id.
    pub id: ObjectId,
    /// What is known of it.
    pub record: Arc<Record>,
    /// Bytes of its file.
    pub bytes: u64,
    /// Whether its file was lost or damaged on the disk.
    pub lost: bool,
}

/// A page of images.
#[derive(Clone, Debug)]
pub struct ImagePage {
    /// The images, newest first.
    pub images: Vec<ImageView>,
    /// Where the next page begins, if there may be one.
    pub next: Option<String>,
}

/// How to give an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rendition {
    /// The file format; the job's `output_format` where it is not given.
    pub format: Option<OutputFormat>,
    /// 1 to 100, of JPEG and WebP.
    pub quality: Option<u8>,
    /// Width in pixels; the height follows. An image is made smaller, never larger.
    pub width: Option<u32>,
}

/// An image as a file.
#[derive(Debug)]
pub struct Content {
    /// Its format.
    pub format: OutputFormat,
    /// The file.
    pub bytes: SecretBytes,
}

impl Inner {
    pub(super) async fn images(
        &self,
        owner: OwnerId,
        query: ImageQuery,
    ) -> Result<ImagePage, ServiceError> {
        let limit = query.limit.unwrap_or(PAGE);
        if !(1..=MAX_PAGE).contains(&limit) {
            return Err(ParamError::new("limit", limit, format!("expected 1 to {MAX_PAGE}")).into());
        }
        let cursor = query.cursor.as_deref().map(str::parse::<Cursor>).transpose();
        let after = cursor.map_err(|_| ServiceError::Cursor)?;
        self.disk(move |store| page(store, owner, &query, after, limit)).await
    }

    pub(super) async fn image(
        &self,
        owner: OwnerId,
        id: ObjectId,
    ) -> Result<ImageView, ServiceError> {
        if let Some((record, bytes)) = self.live.kept(owner, id) {
            return Ok(ImageView { id, record, bytes, lost: false });
        }
        let view = self.disk(move |store| open(store, owner, id)).await?;
        view.ok_or(ServiceError::NotFound { what: "image" })
    }

    pub(super) async fn content(
        &self,
        owner: OwnerId,
        id: ObjectId,
        wanted: Rendition,
    ) -> Result<Content, ServiceError> {
        check(wanted)?;
        let (record, png) = match self.live.take(owner, id) {
            Some(Found::Taken) => return Err(ServiceError::Taken),
            Some(Found::Result(record, png)) => (record, png),
            None => {
                let found = self
                    .disk(move |store| {
                        let Some(view) = open(store, owner, id)? else { return Ok(None) };
                        let content = store.content(owner, id)?;
                        Ok(content.map(|content| (view.record, SecretBytes::from(content))))
                    })
                    .await?;
                found.ok_or(ServiceError::NotFound { what: "image" })?
            }
        };
        let format = wanted.format.unwrap_or(record.output_format);
        let (width, height) = record.image.map_or((1, 1), |image| (image.width, image.height));
        let narrower = wanted.width.filter(|wanted| *wanted < width);
        if format == OutputFormat::Png && narrower.is_none() {
            return Ok(Content { format, bytes: png });
        }
        let scratch = self.memory.scratch(u64::from(width) * u64::from(height)).await;
        let limits = imaging::Limits::default();
        blocking(move || {
            let picture = imaging::decode(&png, &limits).map_err(ServiceError::Rendition)?;
            let picture = match narrower {
                Some(width) => fit(&picture, width),
                None => picture,
            };
            let bytes = imaging::encode(&picture, format, wanted.quality);
            drop(scratch);
            Ok(Content { format, bytes: bytes.map_err(ServiceError::Rendition)?.into() })
        })
        .await?
    }

    /// Deletes images with the records of their jobs, in one write. Gives the images that were there.
    pub(super) async fn delete_images(
        &self,
        owner: OwnerId,
        ids: Vec<ObjectId>,
    ) -> Result<Vec<ObjectId>, ServiceError> {
        if ids.len() > MAX_DELETED {
            let allowed = format!("at most {MAX_DELETED} at once");
            return Err(ParamError::new("ids", format!("{} ids", ids.len()), allowed).into());
        }
        let (kept, stored): (Vec<_>, Vec<_>) =
            ids.into_iter().partition(|id| self.live.discard(owner, *id));
        let mut deleted = kept;
        let (jobs, gone) = self
            .disk(move |store| {
                // The job's record says as much of the person as the image's: both go.
                let mut jobs = Vec::new();
                for id in &stored {
                    // An image whose record cannot be read any more is deleted all the same.
                    if let Ok(Some(view)) = open(store, owner, *id) {
                        jobs.push(view.record.job);
                    }
                }
                let pictures = stored.iter().map(|id| Change::Delete(Class::Picture, *id));
                let records = jobs.iter().map(|id| Change::Delete(Class::Job, *id));
                let changes: Vec<_> = pictures.chain(records).collect();
                let gone = store.write(owner, &changes)?.deleted;
                Ok((jobs, gone.into_iter().filter(|id| stored.contains(id)).collect::<Vec<_>>()))
            })
            .await?;
        jobs.into_iter().for_each(|job| self.live.forget(owner, job));
        deleted.extend(gone);
        Ok(deleted)
    }
}

fn open(
    store: &dyn Store,
    owner: OwnerId,
    id: ObjectId,
) -> Result<Option<ImageView>, ServiceError> {
    let at = (owner, Class::Picture, id);
    let Some(head) = store.head(at)? else { return Ok(None) };
    let Some(bytes) = store.record(at)? else { return Ok(None) };
    let record = Record::decode(&bytes).ok_or(ServiceError::Broken)?;
    let lost = head.state == State::Lost;
    Ok(Some(ImageView { id, record: Arc::new(record), bytes: head.size, lost }))
}

fn page(
    store: &dyn Store,
    owner: OwnerId,
    query: &ImageQuery,
    after: Option<Cursor>,
    limit: usize,
) -> Result<ImagePage, ServiceError> {
    let text = query.text.as_ref().map(|text| text.to_lowercase());
    let filtered = text.is_some() || query.style.is_some();
    let wanted = |record: &Record| {
        text.as_ref().is_none_or(|text| record.mentions(text))
            && query.style.as_ref().is_none_or(|style| record.style.as_ref() == Some(style))
    };
    let (mut images, mut next, mut opened) = (Vec::new(), after, 0);
    loop {
        // Without a filter every entry counts; with one a page of the store may give few.
        let size = if filtered { PAGE } else { limit - images.len() };
        let (from, until) = (query.from, query.until);
        let of_store = Query { class: Class::Picture, from, until, after: next, limit: size };
        let found = store.list(owner, &of_store)?;
        let mut heads = found.heads.into_iter();
        for head in heads.by_ref() {
            opened += 1;
            // One that was deleted meanwhile is not there; one that cannot be read is left out of a
            // list, and says why when it is asked for.
            if let Ok(Some(view)) = open(store, owner, head.id)
                && wanted(&view.record)
            {
                images.push(view);
            }
            next = Some(head.cursor());
            if images.len() == limit {
                break;
            }
        }
        if images.len() == limit || found.next.is_none() || opened >= MAX_OPENED {
            let more = found.next.is_some() || heads.next().is_some();
            let next = next.filter(|_| more).map(|cursor| cursor.to_string());
            return Ok(ImagePage { images, next });
        }
    }
}

fn check(wanted: Rendition) -> Result<(), ServiceError> {
    if let Some(quality) = wanted.quality.filter(|quality| !(1..=100).contains(quality)) {
        return Err(ParamError::new("quality", quality, "expected 1 to 100").into());
    }
    if let Some(width) = wanted.width.filter(|width| !(16..=4096).contains(width)) {
        return Err(ParamError::new("width", width, "expected 16 to 4096 pixels").into());
    }
    Ok(())
}

/// The picture that wide, its height in proportion.
fn fit(picture: &Pixels, width: u32) -> Pixels {
    let height = f64::from(width) * f64::from(picture.height()) / f64::from(picture.width());
    imaging::resize(picture, Size::new(width, (height.round() as u32).max(1)))
}
