//! Emits an event, and handles it on a runtime with several threads.

use evbus::{Bus, Error, NewEvent};

#[tokio::main]
async fn main() -> Result<(), Error> {
    let bus = Bus::create("./bus").await?;
    bus.emit(NewEvent::new("order.created").subject("order/1")).await?;
    let consumer = bus.group("mail").types(["order.*"]).handler(|event| async move {
        println!("handled {}", event.subject().unwrap_or_default());
    });
    let totals = tokio::spawn(consumer.drain()).await.expect("the drain does not panic")?;
    println!("{} done", totals.done);
    Ok(())
}
