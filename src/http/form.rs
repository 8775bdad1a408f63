//! An edit as a form, `multipart/form-data`: pictures are files.
//!
//! A file goes piece by piece into an [`Upload`](crate::service::Upload) and nowhere else. The names
//! and content types that a browser gives files are not looked at.

use super::{
    ApiError, Code,
    fields::{Edit, Field, Value},
};
use crate::{domain::SecretBytes, service::Service};
use axum::{
    body::Body,
    extract::{FromRequest, Multipart, Request, multipart::MultipartError},
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

/// Bytes that the parser is given at once.
const PIECE: usize = 16 << 10;
/// Bytes that the parser may take and give nothing for: what stands before a part's content.
const HEAD: usize = 64 << 10;

/// Reads an edit.
///
/// # Errors
/// The body is no form, or a field of it cannot be used.
pub(super) async fn read(request: Request, service: &Service) -> Result<Edit, ApiError> {
    let kept = Arc::new(AtomicUsize::new(0));
    let of_parser = Arc::clone(&kept);
    let request = request.map(|body| paced(body, of_parser));
    let form = Multipart::from_request(request, &()).await;
    let mut form = form.map_err(|_| {
        let message = "the content type names no boundary, let the client's library set the header";
        ApiError::new(Code::InvalidMultipart, message)
    })?;
    let mut edit = Edit::default();
    while let Some(mut part) = form.next_field().await.map_err(broken)? {
        kept.store(0, Ordering::Relaxed);
        let field = Field::named(part.name().unwrap_or_default())?;
        if field.is_picture() {
            let mut upload = edit.picture(service)?;
            while let Some(piece) = part.chunk().await.map_err(broken)? {
                kept.store(0, Ordering::Relaxed);
                upload.push(&piece)?;
            }
            edit.pictures.push(upload);
        } else {
            field.check_length(0)?;
            let mut text = SecretBytes::default();
            while let Some(piece) = part.chunk().await.map_err(broken)? {
                kept.store(0, Ordering::Relaxed);
                field.check_length(text.len() + piece.len())?;
                text.extend(&piece);
            }
            let text = std::str::from_utf8(&text)
                .map_err(|_| field.refuse("not UTF-8", "send text in UTF-8"))?;
            edit.set(field, Value::Written(text))?;
        }
    }
    Ok(edit)
}

/// `body` in small pieces, with a pause before each. The parser takes whatever is there before it
/// gives any of it, into memory that is neither limited nor zeroed; so what is there is little.
/// `kept` counts what it took, and is set back by whoever was given something.
fn paced(body: Body, kept: Arc<AtomicUsize>) -> Body {
    let start = (body.into_data_stream(), Bytes::new());
    let pieces = stream::try_unfold(start, move |(mut body, mut rest)| {
        let kept = Arc::clone(&kept);
        async move {
            tokio::task::yield_now().await;
            while rest.is_empty() {
                match body.next().await {
                    Some(more) => rest = more?,
                    None => return Ok(None),
                }
            }
            let piece = rest.split_to(rest.len().min(PIECE));
            if kept.fetch_add(piece.len(), Ordering::Relaxed) > HEAD {
                let error = io::Error::other("the head of a part does not end");
                return Err(axum::Error::new(error));
            }
            Ok(Some((piece, (body, rest))))
        }
    });
    Body::from_stream(pieces)
}

/// The parser's own words might quote the body.
fn broken(_: MultipartError) -> ApiError {
    let message = "the body is no whole multipart/form-data, send it again";
    ApiError::new(Code::InvalidMultipart, message)
}
